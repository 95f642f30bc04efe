"""Exact resume: everything that the next step depends on, written so that it is there whole or not at all.

A checkpoint is a directory `step-N`, N the optimizer steps taken: one `rank-R.safetensors` by each rank that wrote a
part of weights, optimizer and random states (see `checkpoint_tensors.py`), `metrics.jsonl` so far, `progress.json`. It
is written in the background as `step-N.partial` and renamed when every byte of every rank is on disk. All ranks see
the same directory. The step is the data cursor (see `data.py`).
"""

import json
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from longrecipe_core.errors import TrainingError
from longrecipe_core.training.checkpoint_tensors import State, Tensors, flush, make_stager, names_in, write
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.metrics_file import read_metrics
from longrecipe_core.training.random_state import random_state, restore_random_state

SEEN_SECONDS = 120.0
"""How long a rank waits for another machine's files to appear; listings of NFS may be a minute old."""


def complete_steps(directory: Path) -> list[int]:
    """Steps of the complete checkpoints under `directory`, rising."""
    names = [path.name for path in directory.glob("step-*") if path.is_dir()]
    return sorted(int(name[5:]) for name in names if name[5:].isdigit())


def made_from(checkpoint: Path) -> dict[str, str]:
    """The content of each input that the training of a checkpoint started from (see `TrainingJob.inputs`)."""
    inputs: dict[str, str] = json.loads((checkpoint / "progress.json").read_text())["inputs"]
    return inputs


def layout(job: TrainingJob) -> dict[str, Any]:
    """What decides the order of sums, and so the last bits, but not what is computed."""
    launch = job.launch
    return {
        "world size": launch.processes,
        "micro_batch": launch.micro_batch,
        "sharding": launch.sharding,
        "parallel": launch.parallel,
        "sequence ranks": launch.sequence_ranks,
        "head ranks": launch.head_ranks,
        "threads": launch.threads,
    }


class Checkpoints:
    """The training checkpoints of one job in one local directory, at most one of them being written at a time.

    Every rank calls every method, in the same order. Only the background threads talk to each other, over a group of
    their own, so a write can't get in the way of the collectives of training.
    """

    def __init__(
        self,
        directory: Path,
        state: State,
        *,
        kept: int,
        accelerator: Any,
        steps: int,
        layout: dict[str, Any],
        metrics: Path,
        inputs: dict[str, str],
        timeout: timedelta,
    ) -> None:
        """Keep `kept` checkpoints of `state` under `directory`.

        `steps` must be equal on resume, since the learning rate follows from it. `layout`, what decides the order of
        sums, may be another; then the bits will be, too. `metrics` is the log that goes along, so that a run resumed
        elsewhere tells its whole story. `inputs` is stored for `made_from`. `timeout` is that of a write's collectives.
        """
        self._directory, self._state = directory, state
        self._kept, self._accelerator, self._device = kept, accelerator, accelerator.device
        self._rank, self._ranks = accelerator.process_index, accelerator.num_processes
        self._steps, self._layout, self._metrics, self._inputs = steps, layout, metrics, inputs
        self._group = dist.new_group(backend="gloo", timeout=timeout) if dist.is_initialized() else None
        self._stager = make_stager(self._device)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._newest = 0  # the step whose state is, or will be, written; known alike on every rank
        self._staged: tuple[int, int, Tensors] | None = None
        self._written: Future[None] | None = None

    def stage(self, step: int) -> None:
        """Copy the state after `step` to host memory; `write` then writes it. First waits for a write in flight.

        Raises:
            TrainingError: The write before this one has failed.
        """
        self.finish()
        part = self._state.part(self._rank, self._ranks)
        self._newest = step
        staged: Any = self._stager.stage(part | self._own_random_state())
        # Here and not in the background: each thread has a number of threads of its own.
        self._staged = (step, torch.get_num_threads(), staged)

    def write(self) -> None:
        """Start to write what is staged, if anything is; the metrics of its step must have been written."""
        if self._staged is not None:
            self._written = self._writer.submit(self._write, *self._staged)
            self._staged = None

    def finish(self) -> None:
        """Wait until nothing is being written.

        Raises:
            TrainingError: A write has failed since this was last called.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def save(self, step: int) -> None:
        """Write the state after `step`, unless that is done, and wait until it stands."""
        if step != self._newest:
            self.stage(step)
            self.write()
        self.finish()
        self._accelerator.wait_for_everyone()  # rank 0 gives the name, after the others are done

    def _write(self, step: int, threads: int, tensors: Tensors) -> None:
        place = self._directory / f"step-{step}"
        try:
            self._write_partial(step, threads, tensors)
            if self._rank == 0:
                place.with_name(f"{place.name}.partial").rename(place)
                flush(self._directory)
                for older in complete_steps(self._directory)[: -self._kept]:
                    # What can't be removed costs space, and is no reason to end a job that trains well.
                    shutil.rmtree(self._directory / f"step-{older}", ignore_errors=True)
        except OSError as error:
            raise TrainingError(f"{place} could not be written: {error}") from error

    def _write_partial(self, step: int, threads: int, tensors: Tensors) -> None:
        partial = self._directory / f"step-{step}.partial"
        if self._rank == 0:
            # Another rank's writer may be making it now, so nothing is removed: what a killed job left, `resume` has.
            partial.mkdir(parents=True, exist_ok=True)
        # No rank writes before rank 0, which plans for all, has come to this point; after it all have written.
        write(tensors, partial, self._group)
        if self._rank == 0:
            shutil.copyfile(self._metrics, partial / "metrics.jsonl")
            progress = {"step": step, "steps": self._steps, "threads": threads, "layout": self._layout}
            (partial / "progress.json").write_text(json.dumps(progress | {"inputs": self._inputs}))
            for name in ("metrics.jsonl", "progress.json", "."):
                flush(partial / name)

    def resume(self) -> int:
        """Load the newest checkpoint, if any, and return how many steps have been taken.

        Under another layout the run goes on, and rank 0 says so.

        Raises:
            TrainingError: The checkpoint is of a run with another number of steps, or damaged.
        """
        if self._rank == 0:
            for partial in self._directory.glob("step-*.partial"):
                shutil.rmtree(partial)
        newest = self._newest_for_all()
        if not newest:
            return 0
        directory = self._directory / f"step-{newest}"
        progress = json.loads((directory / "progress.json").read_text())
        if progress.get("steps") != self._steps:
            raise TrainingError(
                f"{directory}: was made with steps {progress.get('steps')}, this run has {self._steps}: resume with "
                f"the same, or remove it here and under state/ in the store"
            )
        changes = [
            f"{key} {before}, now {self._layout.get(key)}"
            for key, before in progress["layout"].items()
            if before != self._layout.get(key)
        ]
        if not changes:
            # The order of sums follows the number of threads, so the run goes on with the one that it began with.
            torch.set_num_threads(progress["threads"])
        elif self._rank == 0:
            print(
                f"step {newest} was reached with {'; '.join(changes)}: the loss curve goes on, but not bit for bit",
                flush=True,
            )
        if self._rank == 0 and len(read_metrics(self._metrics)) < progress["step"]:
            self._metrics.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / "metrics.jsonl", self._metrics)
        # A rank that wasn't there before keeps the random state that its seed gave it.
        there = names_in(directory)
        own = {name: state for name, state in self._own_random_state().items() if name in there}
        self._state.load(directory, own, self._group)
        restore_random_state({name.rpartition(".")[2]: state for name, state in own.items()}, self._device)
        self._newest = int(progress["step"])
        return self._newest

    def _newest_for_all(self) -> int:
        """The newest complete step as rank 0 sees it, 0 without any.

        On another machine a listing of the shared directory may be old, and ranks that went on from different steps
        would train on without noticing.

        Raises:
            TrainingError: This rank doesn't come to see it.
        """
        step = torch.tensor(max(complete_steps(self._directory), default=0))
        if self._group is not None:
            dist.broadcast(step, 0, group=self._group)
        newest = int(step)
        deadline = time.monotonic() + SEEN_SECONDS
        while newest and not (self._directory / f"step-{newest}" / "progress.json").exists():
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"rank {self._rank} does not see {self._directory}/step-{newest}, from which rank 0 goes on: all "
                    f"machines need the same directory"
                )
            time.sleep(1.0)
        return newest

    def _own_random_state(self) -> Tensors:
        return {f"random.{self._rank}.{name}": state for name, state in random_state(self._device).items()}
