"""All that a training job needs before its first step, made in the one order that works."""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from longrecipe_core.attention import SequenceGroup, attach, probe
from longrecipe_core.training.build import build_model
from longrecipe_core.training.checkpoint_tensors import State
from longrecipe_core.training.data import Batches, open_samples
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.loss import SummedLoss
from longrecipe_core.training.schedule import total_steps
from longrecipe_core.training.sharding import wrap
from longrecipe_core.training.world import join_sequence_group, make_accelerator


@dataclass(frozen=True)
class Training:
    """A job on this rank, ready for its first step."""

    accelerator: Accelerator
    shared: SequenceGroup
    """The ranks that this one shares its sequences with."""
    model: Any
    """The causal LM inside `summed_loss`."""
    summed_loss: torch.nn.Module
    """What is called in training: the loss over the model, as DDP copies or FSDP2 shards it."""
    optimizer: torch.optim.Optimizer
    state: State
    """Weights and optimizer, for checkpoints."""
    batches: Batches
    steps: int


def set_up(job: TrainingJob) -> Training:
    """Join the other ranks, load the model, and check that it trains what it should.

    Raises:
        TrainingError: The world is not the one asked for, or gradients would not be synchronised.
        AttentionError: Attention is cut somewhere.
        ModelError: The model's logits are not its head's output.
    """
    accelerator = make_accelerator(job)
    shared = join_sequence_group(job)
    torch.manual_seed(job.seed + accelerator.process_index)
    samples = open_samples(job.data, job.seed)
    rank, degree = accelerator.process_index, shared.layout.degree
    batches = Batches(
        samples,
        global_batch=job.training.global_batch,
        micro_batch=job.launch.micro_batch,
        rank=rank // degree,
        world_size=accelerator.num_processes // degree,
        seed=job.seed,
        stage=job.stage,
        layout=shared.layout,
        place=rank % degree,
    )
    model = build_model(job).to(accelerator.device)
    loss = SummedLoss(model, job.launch.loss_chunk)  # compares the head with the model, which needs whole sequences
    attach(model, job.launch.parallel, shared.group, job.launch.ulysses_degree)
    with accelerator.autocast():  # on the device, in the precision and in the parallel mode that training has
        probe(model, shared)
    summed_loss, optimizer, state = wrap(loss, job, accelerator)
    return Training(
        accelerator, shared, model, summed_loss, optimizer, state, batches, total_steps(job.training, len(samples))
    )
