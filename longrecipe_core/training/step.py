"""One optimizer step over one global batch."""

import math
from typing import Any

import torch

from longrecipe_core.errors import TrainingError
from longrecipe_core.training.data import IGNORED, Batch, StepBatches
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.preemption import Preemption
from longrecipe_core.training.schedule import learning_rate
from longrecipe_core.training.setup import Training
from longrecipe_core.training.sharding import backward, synchronised, update


def optimizer_step(job: TrainingJob, training: Training, read: StepBatches, preemption: Preemption) -> dict[str, Any]:
    """One global batch: the loss is a sum over all ranks and micro-batches, divided by the global target tokens.

    Raises:
        TrainingError: A loss or gradient is not finite, or nothing has a label.
        PreemptedError: All ranks agreed to end before a micro-batch; the gradients are then of half a step.
    """
    accelerator, summed_loss, optimizer = training.accelerator, training.summed_loss, training.optimizer
    device, step, steps, batches = accelerator.device, read.step, training.steps, read.batches
    rate = learning_rate(job.training, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    # Over all ranks, since each holds other samples; each enters its wait in a place of its own.
    waits = [0] * accelerator.num_processes
    waits[accelerator.process_index] = round(read.waited * 1e6)
    counts = torch.tensor(
        [sum(int((b.labels != IGNORED).sum()) for b in batches), sum(b.tokens for b in batches), *waits],
        device=device,
    )
    targets, tokens, *waits = (int(count) for count in accelerator.reduce(counts, "sum"))
    if targets == 0:
        raise TrainingError(f"step {step + 1}: no token of the global batch has a label; samples {_numbers(batches)}")
    total = torch.zeros((), dtype=torch.float64, device=device)
    for place, batch in enumerate(batches):
        preemption.check()
        with synchronised(summed_loss, accelerator, last=place == len(batches) - 1):
            with accelerator.autocast():
                loss = summed_loss(
                    batch.input_ids.to(device),
                    batch.position_ids.to(device),
                    batch.labels.to(device),
                    batch.sample_starts,
                )
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"step {step + 1}: the loss is {loss.item()} at samples {list(batch.numbers)} of stage {job.stage}"
                )
            # All ways of sharding average over the ranks, and the sum is wanted: hence the factor.
            backward(summed_loss, accelerator, loss * (accelerator.num_processes / targets))
        total += loss.detach().double()
    norm = update(summed_loss, optimizer, job.training.clip, device)
    if not math.isfinite(norm):
        raise TrainingError(f"step {step + 1}: the gradient's norm is {norm} at samples {_numbers(batches)}")
    return {
        "step": step + 1,
        "steps": steps,
        "tokens": tokens,
        "target_tokens": targets,
        "loss": float(accelerator.reduce(total, "sum")) / targets,
        "lr": rate,
        "lr_after": learning_rate(job.training, step + 1, steps),
        "grad_norm": norm,
        "data_wait": max(waits) / 1e6,  # seconds of the rank that waited longest: the others wait for it
    }


def _numbers(batches: list[Batch]) -> list[int]:
    return [number for batch in batches for number in batch.numbers]
