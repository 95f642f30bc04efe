"""Steps of ours against steps of transformers.Trainer, and the share of the machine's own matrix products reached.

`python -m benchmarks.train.throughput CASE` is the process of one comparison: two precisions don't go into one.
"""

import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.figures import REPEATS, Figure, Report, interleaved, median_ratio
from benchmarks.train import models, sides
from benchmarks.train.child import answer, ask

UNTIMED = 1  # step of each side: allocators grow, the optimizer makes its state
TINY_STEPS = 60
STEPS = {512: 5, 2048: 3, 4096: 2}  # by length; steps of 4,096 tokens take half a minute


@dataclass(frozen=True)
class Case:
    """One comparison."""

    shape: str
    length: int
    batch: int = 1
    precision: str = "fp32"
    checkpointing: str = "none"
    steps: int = REPEATS

    def run(self) -> "Measured":
        """All steps of both sides, in turns, in a process of their own."""
        return Measured(self, **ask("benchmarks.train.throughput", json.dumps(asdict(self))))

    def here(self) -> dict[str, Any]:
        """The same in this process."""
        with models.scratch() as directory:
            job = models.make_job(
                directory,
                models.make_model(models.SHAPES[self.shape](), directory / "model"),
                length=self.length,
                steps=UNTIMED + self.steps,
                batch=self.batch,
                precision=self.precision,
                activation_checkpointing=self.checkpointing,
            )
            turns = sides.take_turns(job, directory)
        return asdict(turns) | {"ours": turns.ours[UNTIMED:], "trainer": turns.trainer[UNTIMED:]}


@dataclass(frozen=True)
class Measured:
    """What a case took, in seconds a step."""

    case: Case
    ours: list[float]
    trainer: list[float]
    first_losses: tuple[float, float]
    step_flops: float
    """Of the model, forward and backward: what is computed again is not counted."""

    @property
    def ratio(self) -> float:
        """Throughput of ours over the Trainer's."""
        return median_ratio(self.trainer, self.ours)

    @property
    def flops_per_second(self) -> float:
        """Of ours."""
        return self.step_flops / statistics.median(self.ours)

    @property
    def detail(self) -> dict[str, Any]:
        """For the JSON file."""
        tokens = self.case.batch * self.case.length
        return asdict(self.case) | {
            "ours_seconds": self.ours,
            "trainer_seconds": self.trainer,
            "first_losses": self.first_losses,
            "ours_tokens_per_second": tokens / statistics.median(self.ours),
            "trainer_tokens_per_second": tokens / statistics.median(self.trainer),
        }


def measure(report: Report) -> None:
    """`throughput_vs_trainer`, `throughput_vs_trainer_135m`, `mfu_fp32`, `mfu_bf16` and what lies behind them."""
    tiny = Case("tiny", 307, batch=8, steps=TINY_STEPS).run()  # as the recipe's stage extend
    report.add(Figure("throughput_vs_trainer", tiny.ratio, "x", ">= 0.97", tiny.detail))
    fp32 = [Case("smollm2", length, steps=steps).run() for length, steps in STEPS.items()]
    for one in fp32:
        report.add(Figure(f"throughput_vs_trainer_135m_{one.case.length}", one.ratio, "x", None, one.detail))
    lowest = min(fp32, key=lambda one: one.ratio)
    report.add(Figure("throughput_vs_trainer_135m", lowest.ratio, "x", ">= 0.97", {"lowest_at": lowest.case.length}))
    bf16 = Case("smollm2", 2048, precision="bf16", steps=3).run()
    report.add(Figure("throughput_vs_trainer_135m_bf16", bf16.ratio, "x", None, bf16.detail))
    again = Case("smollm2", 512, checkpointing="full").run()
    report.add(Figure("throughput_vs_trainer_135m_checkpointing", again.ratio, "x", None, again.detail))
    for name, measured in (("fp32", fp32[1]), ("bf16", bf16)):
        peak = matmul_flops(torch.float32 if name == "fp32" else torch.bfloat16)
        detail: dict[str, Any] = {
            "model_gflops": measured.flops_per_second / 1e9,
            "matmul_gflops": peak / 1e9,
            "shape": "135m, 2048",
        }
        report.add(Figure(f"mfu_{name}", measured.flops_per_second / peak, "ratio", None, detail))


def matmul_flops(dtype: torch.dtype) -> float:
    """FLOP/s of the best of some square matrix products on all cores: what this machine's libraries reach at most."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    best = 0.0
    for size in (1024, 2048, 4096):
        left, right = torch.randn(2, size, size).to(dtype)
        left @ right
        (seconds,) = interleaved(lambda left=left, right=right: left @ right, repeats=REPEATS)  # type: ignore[misc]
        best = max(best, 2 * size**3 / statistics.median(seconds))
    return best


if __name__ == "__main__":
    answer(Case(**json.loads(sys.argv[1])).here())
