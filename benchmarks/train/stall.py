"""How long training steps stand still for checkpoints, in real training jobs."""

import statistics
from typing import Any

from benchmarks.figures import Figure, Report
from benchmarks.train import models
from longrecipe_core.launching import launch_training
from longrecipe_core.training.metrics_file import read_metrics

SAVES = 3


def measure(report: Report) -> None:
    """`checkpoint_stall`: seconds waited for checkpoints over seconds of all steps, waits included."""
    large = run("smollm2", 512, batch=1, every=10)  # of one sequence each: a fifth of the recipes' steps between saves
    report.add(Figure("checkpoint_stall", large["share"], "ratio", "<= 0.05", large))
    # What the step does not wait for may still slow it down: it is written by the same processor.
    report.add(Figure("checkpoint_slowdown", large["slowdown"], "ratio"))
    tiny = run("tiny", 307, batch=8, every=50)  # as the recipe has it
    report.add(Figure("checkpoint_stall_tiny", tiny["share"], "ratio", None, tiny))


def run(shape: str, length: int, *, batch: int, every: int) -> dict[str, Any]:
    """A job under `accelerate launch` that saves `SAVES` times, and what its `metrics.jsonl` says."""
    with models.scratch() as directory:
        job = models.make_job(
            directory,
            models.make_model(models.SHAPES[shape](), directory / "model"),
            length=length,
            steps=SAVES * every + every // 2,
            batch=batch,
            checkpoint_every=every,
        )
        path = directory / "job.json"
        path.write_text(job.model_dump_json())
        launch_training(path, cuda=False, log=lambda line: None)
        rows = read_metrics(job.logs / "metrics.jsonl")
    waits, seconds = [row["checkpoint_wait"] for row in rows], [row["seconds"] for row in rows]
    steps = [whole - wait for whole, wait in zip(seconds, waits, strict=True)]
    saved = [step for step, row in enumerate(rows, 1) if row["step"] % every == 0 and step < len(rows)]
    if len(saved) != SAVES:
        raise SystemExit(f"{len(saved)} checkpoints in {len(rows)} steps, not {SAVES}")
    others = [seconds for step, seconds in enumerate(steps) if step and step not in saved]
    return {
        "share": sum(waits) / sum(seconds),
        "slowdown": statistics.median(steps[step] for step in saved) / statistics.median(others),
        "every": every,
        "wait_seconds": [waits[step - 1] for step in saved],
        "step_seconds": statistics.median(seconds),
    }
