"""One training step of ours and one of transformers.Trainer, in turns within one process.

Ours is made of the training job's own pieces, set up as it does, with all that its loop does in a step: the samples
read ahead, the row of `metrics.jsonl` and TensorBoard. The Trainer runs its own `train`; a callback takes our step at
the end of each of its steps, so its time is that of its whole loop between two.
"""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from longrecipe_core.training.data import Batch, Batches, open_samples, read_ahead
from longrecipe_core.training.flops import training_flops
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.metrics import Metrics, peak_memory_mb
from longrecipe_core.training.preemption import Preemption
from longrecipe_core.training.setup import set_up
from longrecipe_core.training.step import optimizer_step


class Ours:
    """The project's training loop, a step at a time."""

    def __init__(self, job: TrainingJob, alone: bool = False) -> None:
        """Set up as the job does; with `alone`, ranks don't add their gradients."""
        self.job = job
        self.steps = job.training.steps or 1
        with _own_determinism():
            self._training = set_up(job)
        self.accelerator, self.model = self._training.accelerator, self._training.model
        if alone and isinstance(self._training.summed_loss, DistributedDataParallel):
            self._training = replace(self._training, summed_loss=self._training.summed_loss.module)
        self._preemption = Preemption(timedelta(seconds=job.launch.collective_timeout))
        self._metrics = Metrics(job.logs, 0) if self.accelerator.is_main_process else None
        self._reader = read_ahead(self._training.batches, 0, self.steps)

    def step(self) -> dict[str, Any]:
        """The next optimizer step; its row of metrics."""
        with _own_determinism():
            return self._step()

    def _step(self) -> dict[str, Any]:
        read = next(self._reader)
        started = time.perf_counter()
        row = optimizer_step(self.job, self._training, read, self._preemption)
        seconds = read.waited + time.perf_counter() - started
        row |= {"seconds": seconds, "tokens_per_second": row["tokens"] / seconds}
        row |= {"flops_per_second": training_flops(self.model, row["tokens"], self.job.data.length) / seconds}
        if self._metrics:
            self._metrics.write(row | {"peak_memory_mb": peak_memory_mb(self.accelerator.device)})
        return row

    def close(self) -> None:
        """End the reader and close the log."""
        self._reader.close()
        if self._metrics:
            self._metrics.close()


@dataclass
class Turns:
    """Seconds of each step of both sides, and the loss of their first one."""

    ours: list[float] = field(default_factory=list)
    trainer: list[float] = field(default_factory=list)
    first_losses: tuple[float, float] = (0.0, 0.0)
    step_flops: float = 0.0


def whole_batches(job: TrainingJob) -> list[Batch]:
    """What the only rank computes, all steps of one micro-batch each."""
    batches = Batches(
        open_samples(job.data, job.seed),
        global_batch=job.training.global_batch,
        micro_batch=job.training.global_batch,
        rank=0,
        world_size=1,
        seed=job.seed,
        stage=job.stage,
    )
    return [batch for step in range(job.training.steps or 1) for batch in batches.step(step)]


class TellingTrainer(Trainer):  # type: ignore[misc]
    """Keeps the first step's loss."""

    first_loss = math.nan

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        if math.isnan(self.first_loss):
            self.first_loss = float(loss.detach())
        return loss


def make_trainer(
    job: TrainingJob, batches: list[Batch], output: Path, callbacks: Sequence[TrainerCallback] = ()
) -> TellingTrainer:
    """A Trainer of the same model, samples, batch, precision, optimizer settings and checkpointing.

    As its user has it by default: stock SDPA, an attention mask of ones beside the ids, its fused AdamW.
    """
    training, checkpointing = job.training, job.launch.activation_checkpointing
    assert checkpointing in ("none", "full")
    rows = [
        # The model shifts; the first label is never one, and would be counted as one.
        {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": torch.cat([ids.new_tensor([-100]), ids[1:]]),
        }
        for batch in batches
        for ids in batch.input_ids
    ]
    arguments = TrainingArguments(
        output_dir=str(output),
        use_cpu=True,
        bf16=training.precision == "bf16",
        max_steps=training.steps,
        per_device_train_batch_size=training.global_batch,
        train_sampling_strategy="sequential",
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=training.betas[0],
        adam_beta2=training.betas[1],
        adam_epsilon=training.epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.clip,
        activation_checkpointing=checkpointing == "full",
        activation_checkpointing_kwargs={"use_reentrant": False} if checkpointing == "full" else None,
        seed=job.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32, attn_implementation="sdpa")
    return TellingTrainer(model=model, args=arguments, train_dataset=rows, callbacks=list(callbacks))


def take_turns(job: TrainingJob, scratch: Path) -> Turns:
    """All steps of the job on both sides, a step each in turns.

    Raises SystemExit where the two don't compute the same.
    """
    turns = Turns()
    ours = Ours(job)
    batches = whole_batches(job)
    losses: list[float] = []

    class OursInBetween(TrainerCallback):  # type: ignore[misc]
        """Takes our step after each of the Trainer's."""

        def __init__(self) -> None:
            self.resumed = 0.0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.resumed = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            turns.trainer.append(now - self.resumed)
            row = ours.step()
            losses.append(row["loss"])
            self.resumed = time.perf_counter()
            turns.ours.append(self.resumed - now)

    trainer = make_trainer(job, batches, scratch / "trainer", [OursInBetween()])
    with redirect_stdout(sys.stderr):  # both tell of their steps, and stdout is for figures
        trainer.train()
        ours.close()
    turns.first_losses = (losses[0], trainer.first_loss)
    # bf16 rounds in two orders; a different batch or model would be off by far more.
    allowed = (1e-2 if job.training.precision == "bf16" else 1e-4) * trainer.first_loss
    if not abs(losses[0] - trainer.first_loss) <= allowed:
        raise SystemExit(
            f"the first loss is {losses[0]} of ours and {trainer.first_loss} of the Trainer's: not the same"
        )
    tokens = job.training.global_batch * job.data.length
    turns.step_flops = training_flops(ours.model, tokens, job.data.length)
    return turns


@contextmanager
def _own_determinism() -> Iterator[None]:
    """Deterministic algorithms, which the job switches on for the process, are on for our steps only."""
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was)
