"""The training loop."""

import time
from contextlib import closing

import torch

from longrecipe_core.attention import probe
from longrecipe_core.modeling import save_model
from longrecipe_core.training.build import build_model, make_optimizer
from longrecipe_core.training.checkpoint import Checkpoints
from longrecipe_core.training.data import Batches, open_samples, read_ahead
from longrecipe_core.training.flops import peak_flops, training_flops
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.loss import SummedLoss
from longrecipe_core.training.metrics import Metrics, peak_memory_mb
from longrecipe_core.training.schedule import total_steps
from longrecipe_core.training.sharding import wrap
from longrecipe_core.training.step import optimizer_step
from longrecipe_core.training.world import emulates_bf16, make_accelerator

# The wrapped model, to the process's end. Freeing DDP joins gloo's thread while holding Python's lock, and that thread
# may just then wait for the lock to free the last barrier's tensors: both would wait for ever (torch 2.13).
_KEPT: list[torch.nn.Module] = []


def train(job: TrainingJob) -> None:
    """Run a job on this rank: resume where a checkpoint is, train, and let rank 0 write the model.

    Raises:
        TrainingError: The world is not the one asked for, or a loss or gradient is not finite.
    """
    accelerator = make_accelerator(job)
    torch.manual_seed(job.seed + accelerator.process_index)
    samples = open_samples(job.data, job.seed)
    steps = total_steps(job.training, len(samples))
    batches = Batches(
        samples,
        global_batch=job.training.global_batch,
        micro_batch=job.launch.micro_batch,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        seed=job.seed,
        stage=job.stage,
    )
    model = build_model(job).to(accelerator.device)
    with accelerator.autocast():  # on the device and in the precision that training has
        probe(model)
    summed_loss = wrap(SummedLoss(model, job.launch.loss_chunk), job, accelerator)
    optimizer = make_optimizer(model, job)
    checkpoints = Checkpoints(
        job.checkpoints,
        kept=job.launch.checkpoints_kept,
        accelerator=accelerator,
        metrics=job.logs / "metrics.jsonl",
        inputs=job.inputs,
        identity={
            "world size": accelerator.num_processes,
            "micro_batch": job.launch.micro_batch,
            "steps": steps,
        },
    )
    taken = checkpoints.resume(model, optimizer)
    peak = peak_flops(accelerator.device, job.training.precision)
    metrics = Metrics(job.logs, taken) if accelerator.is_main_process else None
    if accelerator.is_main_process:
        if job.training.precision == "bf16" and emulates_bf16(accelerator.device):
            print("this CPU has no bf16 arithmetic and emulates it: precision fp32 is many times faster", flush=True)
        print(
            f"{job.stage}: step {taken} of {steps}, {accelerator.num_processes} ranks on {accelerator.device}",
            flush=True,
        )
    with closing(read_ahead(batches, taken, steps)) as reader:
        for read in reader:
            started = time.perf_counter()
            row = optimizer_step(job, accelerator, summed_loss, optimizer, read, steps)
            if metrics:
                seconds = read.waited + time.perf_counter() - started
                row |= {"seconds": seconds, "tokens_per_second": row["tokens"] / seconds}
                speed = training_flops(model, row["tokens"], job.data.length) / seconds / accelerator.num_processes
                row |= {"flops_per_second": speed, "mfu": speed / peak if peak else None}
                metrics.write(row | {"peak_memory_mb": peak_memory_mb(accelerator.device)})
            if row["step"] % job.launch.checkpoint_every == 0 and row["step"] < steps:
                checkpoints.save(row["step"], model, optimizer)
    if metrics:
        metrics.close()
        save_model(model, job.output)
    accelerator.wait_for_everyone()  # the other ranks must not end, and be taken for dead, while rank 0 writes
    accelerator.end_training()
    _KEPT.append(summed_loss)
