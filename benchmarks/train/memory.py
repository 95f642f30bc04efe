"""Peak memory of a step of ours against that of transformers.Trainer, each in a process of its own.

`python -m benchmarks.train.memory ours|trainer CHECKPOINTING LENGTH` is such a process.
"""

import sys

from benchmarks.figures import Figure, Report
from benchmarks.train import models, sides
from benchmarks.train.child import answer, ask
from benchmarks.train.peak import peak_mb, reset_peak

LENGTH, STEPS = 8192, 2  # in the second step the optimizer has its state


def measure(report: Report) -> None:
    """`peak_memory_vs_trainer`: what two steps need above what the process has before them."""
    for checkpointing, name, target in (("none", "", "<= 0.25"), ("full", "_checkpointing", None)):
        ours, trainer = (
            ask("benchmarks.train.memory", side, checkpointing, str(LENGTH)) for side in ("ours", "trainer")
        )
        detail = {"length": LENGTH, "checkpointing": checkpointing, "ours": ours, "trainer": trainer}
        report.add(Figure(f"peak_memory_vs_trainer{name}", ours["mb"] / trainer["mb"], "ratio", target, detail))
    report.add(Figure("peak_memory_mb", ours["mb"], "MB"))


def peak_of(side: str, checkpointing: str, length: int) -> dict[str, float]:
    """MB above the resident size before the first step, and that size."""
    with models.scratch() as directory:
        job = models.make_job(
            directory,
            models.make_model(models.large_vocabulary(), directory / "model"),
            length=length,
            steps=STEPS,
            activation_checkpointing=checkpointing,
        )
        if side == "ours":
            ours = sides.Ours(job)
            before = reset_peak()
            for _ in range(STEPS):
                ours.step()
            return {"mb": peak_mb() - before, "before_mb": before}
        trainer = sides.make_trainer(job, sides.whole_batches(job), directory / "trainer")
        before = reset_peak()
        trainer.train()
        return {"mb": peak_mb() - before, "before_mb": before}


if __name__ == "__main__":
    answer(peak_of(sys.argv[1], sys.argv[2], int(sys.argv[3])))
