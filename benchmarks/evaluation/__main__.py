"""`make bench-eval`: speed and memory of the evaluation, against the targets of its design."""

import argparse
import os
import sys

# Before any library reads it: nothing is fetched.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from benchmarks.evaluation import answers, memory, speed
from benchmarks.figures import Report

PARTS = {"speed": speed.measure, "memory": memory.measure, "answers": answers.measure}


def main() -> int:
    """Measure, print a line per figure, write `results/eval.json`; 1 when a figure is short of its target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="some parts; writes no file")
    parser.add_argument("--small", action="store_true", help="two layers and short texts, to try it; writes no file")
    chosen = parser.parse_args()
    report = Report("eval", {})
    for name, measure in PARTS.items():
        if name in chosen.only:
            measure(report, chosen.small)
    if set(chosen.only) == set(PARTS) and not chosen.small:
        print(f"written to {report.write()}", file=sys.stderr)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
