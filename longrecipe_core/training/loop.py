"""The training loop."""

import math
import os
import time
from contextlib import closing
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from longrecipe_core.attention import attach, probe
from longrecipe_core.errors import TrainingError
from longrecipe_core.modeling import load_config, load_model, rope_config, save_model
from longrecipe_core.training.checkpoint import Checkpoints
from longrecipe_core.training.data import IGNORED, Batch, Batches, StepBatches, open_samples, read_ahead
from longrecipe_core.training.flops import peak_flops, training_flops
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.loss import SummedLoss
from longrecipe_core.training.metrics import Metrics, peak_memory_mb
from longrecipe_core.training.schedule import learning_rate, total_steps

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
    summed_loss = accelerator.prepare(SummedLoss(model, job.launch.loss_chunk))
    check_wrapping(summed_loss, accelerator)
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


def make_accelerator(job: TrainingJob) -> Accelerator:
    """Set threads, determinism and process group, and assert that the world is as large as asked for (traps, 11)."""
    # The number of threads decides the order of sums on a CPU, so a resumed run must have the same.
    torch.set_num_threads(job.launch.threads or max(1, (os.cpu_count() or 1) // job.launch.processes))
    torch.use_deterministic_algorithms(True)
    accelerator = Accelerator(
        mixed_precision="bf16" if job.training.precision == "bf16" else "no",
        kwargs_handlers=[
            # DDP re-sorts its buckets after the first backward unless it looks for unused parameters; from four ranks
            # on, a resumed run would then add in another order than an uninterrupted one (traps, 11).
            DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(seconds=job.launch.collective_timeout)),
        ],
    )
    if accelerator.num_processes != job.launch.processes:
        raise TrainingError(
            f"the job asks for launch.processes {job.launch.processes}, but {accelerator.num_processes} were started"
        )
    return accelerator


def emulates_bf16(device: torch.device) -> bool:
    """Whether bf16 products are emulated: measured about 18 times slower than fp32 on a CPU with AVX2 only."""
    return device.type == "cpu" and not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def check_wrapping(summed_loss: torch.nn.Module, accelerator: Accelerator) -> None:
    """Raise unless gradients are really synchronised: accelerate can fall back without a word (traps, 11)."""
    wrapped = isinstance(summed_loss, torch.nn.parallel.DistributedDataParallel)
    if wrapped != (accelerator.num_processes > 1):
        raise TrainingError(f"{accelerator.num_processes} ranks, but the model is a {type(summed_loss).__name__}")


def build_model(job: TrainingJob) -> Any:
    """The starting weights in fp32 under the new RoPE, with our attention and checkpointing as asked."""
    config = load_config(job.model, job.trust_remote_code)
    if job.rope is not None:
        if job.target_length is None:
            raise TrainingError(f"{job.stage}: a RoPE change needs a target_length")
        config = rope_config(config, job.rope, window=job.window, target_length=job.target_length)
    model = load_model(job.model, config=config, trust_remote_code=job.trust_remote_code)
    attach(model).train()
    if job.launch.activation_checkpointing == "full":
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model


def make_optimizer(model: torch.nn.Module, job: TrainingJob) -> torch.optim.AdamW:
    """AdamW over every parameter, decay on all of them, as the reference has it."""
    training = job.training
    return torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        betas=training.betas,
        eps=training.epsilon,
        weight_decay=training.weight_decay,
    )


def optimizer_step(
    job: TrainingJob,
    accelerator: Accelerator,
    summed_loss: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    read: StepBatches,
    steps: int,
) -> dict[str, Any]:
    """One global batch: the loss is a sum over all ranks and micro-batches, divided by the global target tokens."""
    device, step, batches = accelerator.device, read.step, read.batches
    rate = learning_rate(job.training, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    # Over all ranks, since each holds other samples; each enters its wait in a place of its own.
    waits = [0] * accelerator.num_processes
    waits[accelerator.process_index] = round(read.waited * 1e6)
    counts = torch.tensor(
        [sum(int((b.labels != IGNORED).sum()) for b in batches), sum(b.input_ids.numel() for b in batches), *waits],
        device=device,
    )
    targets, tokens, *waits = (int(count) for count in accelerator.reduce(counts, "sum"))
    if targets == 0:
        raise TrainingError(f"step {step + 1}: no token of the global batch has a label; samples {_numbers(batches)}")
    total = torch.zeros((), dtype=torch.float64, device=device)
    for place, batch in enumerate(batches):
        last = place == len(batches) - 1
        with accelerator.no_sync(summed_loss) if not last else torch.enable_grad():
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
            # DDP averages over the ranks, and the sum is wanted: hence the factor.
            accelerator.backward(loss * (accelerator.num_processes / targets))
        total += loss.detach().double()
    norm = float(torch.nn.utils.clip_grad_norm_(summed_loss.parameters(), job.training.clip))
    if not math.isfinite(norm):
        raise TrainingError(f"step {step + 1}: the gradient's norm is {norm} at samples {_numbers(batches)}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
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
