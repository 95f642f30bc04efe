"""What the job tells: `metrics.jsonl`, TensorBoard, and a line on stdout every few seconds."""

import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from longrecipe_core.training.metrics_file import read_metrics

LINE_SECONDS = 2.0


class Metrics:
    """Written by rank 0 only. On resume, lines of steps that will be taken again are dropped."""

    def __init__(self, directory: Path, steps_taken: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "metrics.jsonl"
        kept = [row for row in read_metrics(self._path) if row["step"] <= steps_taken]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._told = -LINE_SECONDS
        self._seconds = self._waited = 0.0
        self._events = SummaryWriter(str(directory / "tensorboard"), purge_step=steps_taken + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Append one step's row; its `step` counts from 1, `seconds` and `data_wait` (a part of it) are in seconds."""
        self._seconds += row["seconds"]
        self._waited += row["data_wait"]
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for key, value in row.items():
            if key not in ("step", "steps") and value is not None:
                self._events.add_scalar(key, value, row["step"])
        now = time.monotonic()
        if now - self._told < LINE_SECONDS and row["step"] < row["steps"]:
            return
        self._told = now
        print(
            f"step {row['step']}/{row['steps']} loss {row['loss']:.4f} lr {row['lr']:.3g} "
            f"{row['tokens_per_second']:.0f} tokens/s",
            flush=True,
        )

    def close(self) -> None:
        """Flush TensorBoard, and tell what share of the steps' time was spent waiting for samples."""
        if self._seconds:
            print(f"waited for data in {self._waited / self._seconds:.2%} of the steps' time", flush=True)
        self._events.close()


def peak_memory_mb(device: torch.device) -> float:
    """MiB: device memory ever allocated on CUDA, the process's largest resident size on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
