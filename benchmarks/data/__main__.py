"""`make bench-data`: speed and memory of the data path, against the targets of its design."""

import argparse
import os
import sys

# Before any library reads them: nothing is fetched, and the tokenizer may use all cores, as in the stage.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("TOKENIZERS_PARALLELISM", None)

from benchmarks.data import index, loading, prose, streaming, tokenization
from benchmarks.figures import Report

PARTS = ["index", "tokenization", "loading", "streaming"]


def main() -> int:
    """Measure, print a line per figure, write `results/data.json`; 1 when a figure is short of its target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument(
        "--text-gb", type=float, default=streaming.FULL_GB, help="text to stream; below 2 its memory has no target"
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="some parts; writes no file")
    chosen = parser.parse_args()
    prose.tokenizer()  # fetched and trained before any clock starts
    report = Report("data", {"text_gb": chosen.text_gb})
    if "index" in chosen.only:
        index.measure(report)
    if "tokenization" in chosen.only:
        tokenization.measure(report)
    if "loading" in chosen.only:
        loading.measure(report)
    if "streaming" in chosen.only:
        streaming.measure(report, chosen.text_gb)
    if set(chosen.only) == set(PARTS):
        print(f"written to {report.write()}", file=sys.stderr)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
