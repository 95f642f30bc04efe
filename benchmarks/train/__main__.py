"""`make bench-train`: speed and memory of the training engine, against the targets of its design."""

import argparse
import os
import sys

# Before any library reads it: nothing is fetched.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from benchmarks.figures import Report
from benchmarks.train import cost, length, memory, merging, sequence, stall, throughput

PARTS = {
    "throughput": throughput.measure,
    "memory": memory.measure,
    "length": length.measure,
    "sequence": sequence.measure,
    "stall": stall.measure,
    "merging": merging.measure,
    "cost": cost.measure,
}


def main() -> int:
    """Measure, print a line per figure, write `results/train.json`; 1 when a figure is short of its target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="some parts; writes no file")
    chosen = parser.parse_args()
    report = Report("train", {})
    for name, measure in PARTS.items():
        if name in chosen.only:
            measure(report)
    if set(chosen.only) == set(PARTS):
        print(f"written to {report.write()}", file=sys.stderr)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
