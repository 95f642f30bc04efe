"""What training on 30 % of the target length saves, by target length: the method's claim, measured."""

import statistics
import sys
from typing import Any

import numpy as np

from benchmarks.figures import Figure, Report, interleaved, median_ratio
from benchmarks.train import models, sides
from benchmarks.train.child import answer, ask
from longrecipe_core.training.flops import training_flops

TARGETS = (1024, 2048, 4096, 8192, 16_384)
SHARE = 0.3
REPEATS = {16_384: 3}  # others 5


def measure(report: Report) -> None:
    """`compute_saved_30pct` at the largest target, at each target, and how a sample's seconds grow with its length."""
    taken = {target: ask("benchmarks.train.length", str(target)) for target in TARGETS}
    for target, found in taken.items():
        report.add(Figure(f"compute_saved_30pct_{target}", 1 - found["ratio"], "ratio", None, found))
    largest = max(TARGETS)
    report.add(Figure("compute_saved_30pct", 1 - taken[largest]["ratio"], "ratio", ">= 0.75", {"target": largest}))
    seconds = {target: statistics.median(found["full_seconds"]) for target, found in taken.items()}
    report.add(Figure("sample_seconds", seconds[largest], "s", None, {"by_length": seconds}))
    report.add(Figure("sample_seconds_growth", growth(seconds), "exponent"))
    upper = {target: seconds[target] for target in TARGETS[-3:]}
    report.add(Figure("sample_seconds_growth_upper", growth(upper), "exponent"))


def growth(seconds: dict[int, float]) -> float:
    """p of seconds = a·lengthᵖ, by least squares of the logarithms: 1 is linear, 2 quadratic."""
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def at(target: int) -> dict[str, Any]:
    """Steps of one sample each, full and 30 % of it in turns."""
    repeats = REPEATS.get(target, 5)
    short = round(SHARE * target)
    with models.scratch() as directory:
        model = models.make_model(models.tiny(), directory / "model")
        full, part = (
            sides.Ours(models.make_job(directory / str(length), model, length=length, steps=repeats + 1))
            for length in (target, short)
        )
        full.step(), part.step()  # not timed
        full_seconds, part_seconds = interleaved(full.step, part.step, repeats=repeats)
        # If both ran at the same speed, their arithmetic alone would say this.
        by_flops = training_flops(part.model, short, short) / training_flops(full.model, target, target)
    return {
        "ratio": median_ratio(part_seconds, full_seconds),
        "full_seconds": full_seconds,
        "part_seconds": part_seconds,
        "ratio_of_flops": by_flops,
    }


if __name__ == "__main__":
    answer(at(int(sys.argv[1])))
