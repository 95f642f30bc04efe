"""Merging two checkpoints: against a plain copy, against mergekit, and how much memory it takes."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks.figures import REPEATS, Figure, Report, median_ratio
from benchmarks.train import models
from longrecipe_core.merging import merge_checkpoints

MERGEKIT = "0.1.5"
WEIGHTS = "model.safetensors"
BLOCK = 2**20
FREE_GB = 8
STARTER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def measure(report: Report) -> None:
    """`merge_vs_copy`, `merge_rss_over_shard_mb`, `merge_vs_mergekit`, and the memory of the other ways."""
    mergekit = mergekit_command()
    if (free := shutil.disk_usage(models.CACHE).free / 1e9) < FREE_GB:
        raise SystemExit(f"{models.CACHE}: {free:.1f} GB free, {FREE_GB} GB needed")
    with models.scratch() as directory:
        sources = [
            models.make_model(models.gigabyte(), directory / name, dtype="bfloat16", seed=seed)
            for seed, name in enumerate(("first", "last"))
        ]
        against_copy(report, sources, directory / "merged")
        as_programs(report, sources, directory / "merged", mergekit)


def against_copy(report: Report, sources: list[Path], output: Path) -> None:
    """The merge, and a copy of the last source after a read of the first: the same bytes read and written."""

    def merge() -> None:
        merge_checkpoints([(str(source), 0.5) for source in sources], str(output))
        flush(output / WEIGHTS)

    def copy() -> None:
        output.mkdir()
        with (sources[0] / WEIGHTS).open("rb", buffering=0) as file:
            buffer = bytearray(BLOCK)
            while file.readinto(buffer):
                pass
        shutil.copyfile(sources[1] / WEIGHTS, output / WEIGHTS)
        flush(output / WEIGHTS)

    size = (sources[1] / WEIGHTS).stat().st_size
    for name, target, prepare, repeats in (("", "<= 1.5", forget, REPEATS), ("_cached", None, remember, 2)):
        merged, copied = in_turns(merge, copy, sources=sources, output=output, prepare=prepare, repeats=repeats)
        detail = {"gb_each": size / 1e9, "merge_seconds": merged, "copy_seconds": copied}
        report.add(Figure(f"merge_vs_copy{name}", median_ratio(merged, copied), "ratio", target, detail))
        report.add(Figure(f"merge_gb_per_second{name}", size / 1e9 / statistics.median(merged), "GB/s"))


def as_programs(report: Report, sources: list[Path], output: Path, mergekit: Path) -> None:
    """Ours, mergekit and both models in memory, each a program with all that it imports; files in the page cache."""
    recipe = output.with_name("mergekit.yaml")
    merged = [{"model": str(source), "parameters": {"weight": 0.5}} for source in sources]
    recipe.write_text(yaml.safe_dump({"merge_method": "linear", "dtype": "bfloat16", "models": merged}))
    peaks: dict[str, list[float]] = {"ours": [], "mergekit": [], "whole": []}

    def program(name: str, command: list[str]) -> Callable[[], None]:
        return lambda: peaks[name].append(peak_mb_of(command))

    def own(way: str) -> list[str]:
        return [sys.executable, "-m", "benchmarks.train.merge_program", way, *map(str, sources), str(output)]

    theirs = [str(mergekit), str(recipe), str(output), "--no-copy-tokenizer", "--no-write-model-card", "--quiet"]
    ours, other, whole = in_turns(
        program("ours", own("ours")),
        program("mergekit", theirs),
        program("whole", own("whole")),
        sources=sources,
        output=output,
        prepare=remember,
        repeats=3,
    )
    detail = {"ours_seconds": ours, "mergekit_seconds": other, "mergekit": MERGEKIT, "whole_seconds": whole}
    report.add(Figure("merge_vs_mergekit", median_ratio(other, ours), "x", ">= 1.0", detail))
    size = (sources[1] / WEIGHTS).stat().st_size / 1e6
    shutil.rmtree(output)
    over_imports = peak_over_imports(own("ours"))
    report.add(Figure("merge_rss_over_shard_mb", over_imports - size, "MB", "<= 300", {"shard_mb": size}))
    report.add(Figure("merge_rss_mb", over_imports, "MB"))
    for name, found in peaks.items():
        report.add(Figure(f"merge_peak_mb_{name}", statistics.median(found), "MB"))


def in_turns(
    *runs: Callable[[], None],
    sources: list[Path],
    output: Path,
    prepare: Callable[[Path], None],
    repeats: int = REPEATS,
) -> list[list[float]]:
    """Seconds of each run, `[runs][repeats]`; before each, not timed, `output` goes and the sources are prepared."""
    seconds: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 1):
        for place, run in enumerate(runs):
            shutil.rmtree(output, ignore_errors=True)
            os.sync()
            for source in sources:
                prepare(source / WEIGHTS)
            started = time.perf_counter()
            run()
            if repeat:  # the first of each isn't timed
                seconds[place].append(time.perf_counter() - started)
    return seconds


def forget(path: Path) -> None:
    """Take a file out of the page cache, so that it is read from the disk."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remember(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(BLOCK):
            pass


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def peak_mb_of(command: list[str]) -> float:
    """Run a program; its highest resident size, imports and mapped files included."""
    # Started by a small process: the kernel counts what the parent has at a start as the child's.
    starter = [sys.executable, "-S", "-c", STARTER, *command]
    done = subprocess.run(starter, cwd=models.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {done.returncode}\n{done.stdout[-2000:]}")
    return float(done.stdout.split()[-1]) * 1024 / 1e6


def peak_over_imports(command: list[str]) -> float:
    """What one of our processes answers."""
    done = subprocess.run(command, cwd=models.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def mergekit_command() -> Path:
    """`mergekit-yaml` of an environment of its own, made once: it brings packages that nothing here needs."""
    environment = models.CACHE / f"mergekit-{MERGEKIT}"
    command = environment / "bin" / "mergekit-yaml"
    if not command.exists():
        models.CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "-qq"]
        constraints = str(models.ROOT / "constraints.txt")  # the same torch, transformers and safetensors as ours
        subprocess.run([*pip, "-c", constraints, f"mergekit=={MERGEKIT}"], check=True)
    return command
