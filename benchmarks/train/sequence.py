"""Two ranks that share a sequence, against two that don't talk to each other.

`python -m benchmarks.train.sequence DIRECTORY LENGTH` is one of two ranks.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.figures import REPEATS, Figure, Report, interleaved, median_ratio
from benchmarks.train import models, sides
from longrecipe_core.launching.machines import free_port

MODES = ("ulysses", "ring")
LENGTH, RANKS = 4096, 2


def measure(report: Report) -> None:
    """`ulysses_efficiency_2`, `ring_efficiency_2`: seconds a sequence of ranks that share none, over those that do."""
    with models.scratch() as directory:
        models.make_model(models.eight_heads(), directory / "model")
        seconds = run_ranks(directory)
    apart = seconds["apart"]  # two sequences at once
    for mode in MODES:
        detail = {"length": LENGTH, "apart_seconds": apart, "shared_seconds": seconds[mode]}
        value = median_ratio(apart, seconds[mode]) / RANKS
        report.add(Figure(f"{mode}_efficiency_2", value, "ratio", ">= 0.7", detail))
    # Where cores share arithmetic units, two processes get less than twice one's speed, and no program gets more.
    gained = RANKS * median_ratio(seconds["one product"], seconds["two products"])
    report.add(Figure("two_processes_speed", gained, "x", None, seconds))


def run_ranks(directory: Path) -> dict[str, list[float]]:
    """Start both ranks, a thread each, and read what the first found."""
    world = {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    world |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.train.sequence", str(directory), str(LENGTH)]
    ranks = [
        subprocess.Popen(
            command,
            cwd=models.ROOT,
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=sys.stderr,
        )
        for rank in range(RANKS)
    ]
    try:
        codes = [rank.wait(timeout=900) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    if any(codes):
        raise SystemExit(f"ranks that share a sequence ended with {codes}")
    found: dict[str, list[float]] = json.loads((directory / "seconds.json").read_text())
    return found


def rank(directory: Path, length: int) -> None:
    """All ways in turns, a barrier around each; the first rank writes what they took."""

    def ours(name: str, alone: bool, batch: int, **launch: Any) -> sides.Ours:
        options = {"processes": RANKS, "threads": 1, "micro_batch": 1} | launch
        job = models.make_job(
            directory / f"{name}-{os.environ['RANK']}",
            directory / "model",
            length=length,
            steps=REPEATS + 1,
            batch=batch,
            **options,
        )
        return sides.Ours(job, alone)

    apart = ours("apart", True, RANKS)
    runs: list[Callable[[], Any]] = [apart.step, *(ours(mode, False, 1, parallel=mode).step for mode in MODES)]

    def together(step: Callable[[], Any]) -> Callable[[], None]:
        def timed() -> None:
            step()
            dist.barrier()

        return timed

    first = apart.accelerator.is_main_process
    matrix = torch.randn(2048, 2048)
    runs += [lambda: matrix @ matrix if first else None, lambda: matrix @ matrix]
    for run in map(together, runs):
        run()  # not timed
    seconds = interleaved(*map(together, runs))
    if first:
        names = ["apart", *MODES, "one product", "two products"]
        (directory / "seconds.json").write_text(json.dumps(dict(zip(names, seconds, strict=True))))
    dist.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank(Path(sys.argv[1]), int(sys.argv[2]))
    dist.destroy_process_group()
