"""Memory while gigabytes of text are tokenized: read from outside, from the process and all its workers.

`python -m benchmarks.data.streaming FILE OUTPUT` is the process that is watched.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.data import prose
from benchmarks.figures import Figure, Report
from longrecipe_core.corpus import tokenize
from longrecipe_core.fan_out import local_engine
from longrecipe_core.recipe.sections import SourceSection

ROOT = Path(__file__).parents[2]
FULL_GB = 2.0
EVERY = 0.2  # seconds


@dataclass
class Memory:
    """Of a process and its descendants, in MB of 10⁶ bytes."""

    highest: dict[int, float] = field(default_factory=dict)
    """VmHWM by process id: the kernel's own high-water mark, which no peak between two looks escapes."""
    resident: list[tuple[float, float]] = field(default_factory=list)
    """(seconds, resident sizes added up) at each look."""

    def look(self, process: psutil.Process, seconds: float) -> None:
        """Read both; a process that has just ended keeps what was seen of it before."""
        total = 0.0
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for member in family:
            marks = memory_marks(member.pid)
            if marks is not None:
                self.highest[member.pid] = max(marks[0], self.highest.get(member.pid, 0.0))
                total += marks[1]
        if total:
            self.resident.append((seconds, total))

    @property
    def peak(self) -> float:
        """The high-water marks of all processes added up: at least the highest sum at any moment."""
        return sum(self.highest.values())

    @property
    def growth(self) -> float:
        """Median resident size in the last tenth of the time less that between 20 % and 30 % of it."""
        end = self.resident[-1][0]
        early = [size for seconds, size in self.resident if 0.2 * end <= seconds <= 0.3 * end]
        late = [size for seconds, size in self.resident if seconds >= 0.9 * end]
        return statistics.median(late) - statistics.median(early) if early and late else 0.0


def memory_marks(pid: int) -> tuple[float, float] | None:
    """(VmHWM, VmRSS) of a process in MB; None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    kibibytes = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines) if "kB" in rest}
    if "VmHWM" not in kibibytes:
        return None
    return kibibytes["VmHWM"] * 1024 / 1e6, kibibytes["VmRSS"] * 1024 / 1e6


def measure(report: Report, gigabytes: float) -> None:
    """`stream_rss_mb` and its growth over time. Text and tokens are removed at the end."""
    prose.CACHE.mkdir(parents=True, exist_ok=True)
    needed, free = 3.5 * gigabytes * 1e9, shutil.disk_usage(prose.CACHE).free
    if free < needed:
        raise SystemExit(
            f"{prose.CACHE}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed; take a lower --text-gb"
        )
    with tempfile.TemporaryDirectory(dir=prose.CACHE) as scratch:
        text, output = Path(scratch) / "prose.jsonl", Path(scratch) / "tokens"
        prose.write_jsonl(text, gigabytes * 1e9)
        command = [sys.executable, "-m", "benchmarks.data.streaming", str(text), str(output)]
        memory, started = Memory(), time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT) as child:
            watched = psutil.Process(child.pid)
            while child.poll() is None:
                memory.look(watched, time.perf_counter() - started)
                time.sleep(EVERY)
        if child.returncode:
            raise SystemExit(f"the tokenizing process ended with {child.returncode}")
        seconds = time.perf_counter() - started
    detail = {
        "text_gb": gigabytes,
        "seconds": round(seconds, 1),
        "processes": len(memory.highest),
        "resident_mb_at_tenths": [round(memory.resident[i * (len(memory.resident) - 1) // 10][1]) for i in range(11)],
    }
    # With less text than the target speaks of, the figure says nothing about it.
    target = "<= 1000" if gigabytes >= FULL_GB else None
    report.add(Figure("stream_rss_mb", memory.peak, "MB", target, detail))
    report.add(Figure("stream_rss_growth_mb", memory.growth, "MB"))
    report.add(Figure("stream_mb_per_second", gigabytes * 1e3 / seconds, "MB/s"))


if __name__ == "__main__":
    tokenize(
        [SourceSection(path=sys.argv[1], format="jsonl", text_column="text")],
        prose.tokenizer(),
        Path(sys.argv[2]),
        validation_share=0.01,
        engine=local_engine(None),
    )
