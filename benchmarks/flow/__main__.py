"""`make bench-flow`: what orchestration costs, against the targets of its design; real server, worker and jobs."""

import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Report
from benchmarks.flow import cached, gone
from benchmarks.flow.site import site


def main() -> int:
    """Measure, print a line per figure, write `results/flow.json`; 1 when a figure is short of its target."""
    report = Report("flow", {})
    with tempfile.TemporaryDirectory(prefix="longrecipe-bench-") as directory, site(Path(directory)) as here:
        cached.measure(report, here)
        gone.measure(report, here)
    print(f"written to {report.write()}", file=sys.stderr)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
