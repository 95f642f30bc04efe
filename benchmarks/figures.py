"""What every benchmark here prints and writes: a line per figure, and a JSON file with machine and versions.

A line is `figure  value  unit  target  ok|short|info`, separated by tabs.
"""

import json
import operator
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"
REPEATS = 5
COMPARISONS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}
PACKAGES = ["accelerate", "datasets", "numpy", "peft", "pyarrow", "tokenizers", "torch", "transformers"]


@dataclass(frozen=True)
class Figure:
    """One measured number; `target` is as `>= 40` or `<= 0.5`, None where the figure only informs."""

    figure: str
    value: float
    unit: str
    target: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    """What it was made from, for the JSON file: seconds of each repeat, sizes, counts."""

    @property
    def status(self) -> str:
        """`ok`, `short` of the target, or `info` where there is none."""
        if self.target is None:
            return "info"
        sign, bound = self.target.split()
        return "ok" if COMPARISONS[sign](self.value, float(bound)) else "short"

    def line(self) -> str:
        """The five columns; the value in four digits or more, though `status` is that of the whole one."""
        value = f"{self.value:.4g}" if abs(self.value) < 1e4 else f"{self.value:.0f}"
        return "\t".join([self.figure, value, self.unit, self.target or "-", self.status])


class Report:
    """The figures of one benchmark, printed as they come."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.figures: list[Figure] = []
        self._name, self._options = name, options
        self._began, self._load = time.perf_counter(), os.getloadavg()

    def add(self, figure: Figure) -> None:
        """Print its line and keep it."""
        print(figure.line(), flush=True)
        self.figures.append(figure)

    def write(self) -> Path:
        """Write `results/NAME.json`: figures with details, options, machine and versions."""
        content = {
            "bench": self._name,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._began, 1),
            "options": self._options,
            "figures": [{**vars(figure), "status": figure.status} for figure in self.figures],
            "machine": machine() | {"load_before": self._load, "load_after": os.getloadavg()},
            "versions": versions(),
        }
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self._name}.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path

    def exit_code(self) -> int:
        """1 when a figure is short of its target."""
        return int(any(figure.status == "short" for figure in self.figures))


def interleaved(*runs: Callable[[], object], repeats: int = REPEATS) -> list[list[float]]:
    """Seconds of each run, `[runs][repeats]`, taken in turns (A B A B …), so that a busy moment falls on all alike."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for place, run in enumerate(runs):
            started = time.perf_counter()
            run()
            seconds[place].append(time.perf_counter() - started)
    return seconds


def median_ratio(above: list[float], below: list[float]) -> float:
    """The median of the ratios of neighbouring runs."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory and system."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Of Python and the packages that the figures depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def _cpu_model() -> str:
    """The name in /proc/cpuinfo with family and model, since clouds shorten the name."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"
