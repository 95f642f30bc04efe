"""The training loop."""

import time
from contextlib import closing
from datetime import timedelta

import torch

from longrecipe_core.errors import PreemptedError
from longrecipe_core.modeling import save_model
from longrecipe_core.training.checkpoint import Checkpoints, layout
from longrecipe_core.training.data import read_ahead
from longrecipe_core.training.flops import peak_flops, training_flops
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.lora import merge_lora
from longrecipe_core.training.metrics import Metrics, peak_memory_mb
from longrecipe_core.training.preemption import Preemption
from longrecipe_core.training.random_state import random_state, restore_random_state
from longrecipe_core.training.setup import set_up
from longrecipe_core.training.sharding import full_weights
from longrecipe_core.training.step import optimizer_step
from longrecipe_core.training.world import emulates_bf16, wait_for_writer

# The wrapped model, to the process's end. Freeing DDP joins gloo's thread while holding Python's lock, and that thread
# may just then wait for the lock to free the last barrier's tensors: both would wait for ever (torch 2.13).
_KEPT: list[torch.nn.Module] = []


def train(job: TrainingJob) -> None:
    """Run a job on this rank: resume where a checkpoint is, train, and let rank 0 write the model.

    Raises:
        TrainingError: The world is not the one asked for, or a loss or gradient is not finite.
        PreemptedError: A rank got SIGTERM; the state after the last whole step is saved.
    """
    training = set_up(job)
    accelerator, model, steps = training.accelerator, training.model, training.steps
    timeout = timedelta(seconds=job.launch.collective_timeout)
    preemption = Preemption(timeout)
    checkpoints = Checkpoints(
        job.checkpoints,
        training.state,
        kept=job.launch.checkpoints_kept,
        accelerator=accelerator,
        steps=steps,
        layout=layout(job),
        metrics=job.logs / "metrics.jsonl",
        inputs=job.inputs,
        timeout=timeout,
    )
    taken = checkpoints.resume()
    peak = peak_flops(accelerator.device, job.training.precision)
    metrics = Metrics(job.logs, taken) if accelerator.is_main_process else None
    if accelerator.is_main_process:
        if job.training.precision == "bf16" and emulates_bf16(accelerator.device):
            print("this CPU has no bf16 arithmetic and emulates it: precision fp32 is many times faster", flush=True)
        print(
            f"{job.stage}: step {taken} of {steps}, {accelerator.num_processes} ranks on {accelerator.device}",
            flush=True,
        )
    with closing(read_ahead(training.batches, taken, steps)) as reader:
        for read in reader:
            started = time.perf_counter()
            random = random_state(accelerator.device)
            try:
                row = optimizer_step(job, training, read, preemption)
            except PreemptedError as error:
                restore_random_state(random, accelerator.device)
                checkpoints.save(read.step)
                raise PreemptedError(f"{job.stage}: {error}; the state after step {read.step} is saved") from None
            stepped = time.perf_counter()
            # Also the last: should writing the model fail, the next start has only that to do.
            if row["step"] % job.launch.checkpoint_every == 0 or row["step"] == steps:
                checkpoints.stage(row["step"])
            if metrics:
                ended = time.perf_counter()
                seconds = read.waited + ended - started
                row |= {"seconds": seconds, "checkpoint_wait": ended - stepped}
                row |= {"tokens_per_second": row["tokens"] / seconds}
                speed = training_flops(model, row["tokens"], job.data.length) / seconds / accelerator.num_processes
                row |= {"flops_per_second": speed, "mfu": speed / peak if peak else None}
                metrics.write(row | {"peak_memory_mb": peak_memory_mb(accelerator.device)})
            checkpoints.write()
    checkpoints.finish()
    weights = full_weights(training.summed_loss, model)
    if metrics:
        metrics.close()
        save_model(model, job.output, state_dict=merge_lora(model, weights))
    wait_for_writer()
    accelerator.end_training()
    _KEPT.append(training.summed_loss)
