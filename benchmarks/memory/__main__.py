"""`python -m benchmarks.memory`: peak memory of a training step of a small Llama, by option, a process for each."""

import argparse
import json
import os
import subprocess
import sys

from benchmarks.figures import Figure, Report
from benchmarks.memory.step import Case

LENGTHS = [4096, 8192]
TILE = 1024


def cases(tokens: int) -> dict[str, Case]:
    """By the name of the figure."""
    found = {}
    for option in ("none", "full", "selective", "offload"):
        for tile in (None, TILE):
            name = f"memory_{option}{'' if tile is None else '_mlp_tile'}"
            found[name] = Case(tokens, option, tile)
    found["memory_none_plain_loss"] = Case(tokens, loss_chunk=None)
    found["memory_full_plain_loss"] = Case(tokens, "full", loss_chunk=None)
    found["memory_step"] = Case(tokens, "full", TILE, whole=True)
    found["memory_step_lora"] = Case(tokens, "full", TILE, whole=True, lora=True)
    return {f"{name}_{tokens}": case for name, case in found.items()}


def measure(case: Case) -> dict[str, float]:
    # A fixed threshold from which memory goes back to the system as soon as it is free: else the allocator's own
    # leftovers would count.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "benchmarks.memory.step", case.json()]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure, print a line per figure, write `results/memory.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=LENGTHS, help="other lengths; writes no file")
    chosen = parser.parse_args()
    report = Report("memory", {"tokens": chosen.tokens})
    for tokens in chosen.tokens:
        for name, case in cases(tokens).items():
            found = measure(case)
            report.add(Figure(name, found["megabytes"], "MB", None, {"seconds": found["seconds"], **vars(case)}))
    if chosen.tokens == LENGTHS:
        print(f"written to {report.write()}", file=sys.stderr)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
