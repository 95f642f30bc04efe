"""A directory that appears whole or not at all."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longrecipe_core.errors import MergeError


@contextmanager
def appearing(output: Path) -> Iterator[Path]:
    """A working directory beside `output` that takes its name at the end of the block, or goes away.

    What a killed process left behind for the same output is removed first: the working directory is locked,
    and a lock ends with its process. Raises MergeError where `output` exists and is not an empty directory.
    """
    _refuse_taken(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.partial-"
    for leftover in output.parent.glob(f"{_escaped(prefix)}*"):
        _remove_if_abandoned(leftover)
    working = Path(tempfile.mkdtemp(prefix=prefix, dir=output.parent))
    lock = os.open(working, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield working
        _open_up(working)
        _refuse_taken(output)
        os.rename(working, output)
    finally:
        shutil.rmtree(working, ignore_errors=True)  # gone already where the rename was done
        os.close(lock)


def _refuse_taken(output: Path) -> None:
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise MergeError(f"{output}: exists and is not an empty directory; a merge overwrites nothing")


def _remove_if_abandoned(leftover: Path) -> None:
    try:
        lock = os.open(leftover, os.O_RDONLY)
    except FileNotFoundError:
        return  # its owner has just finished
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(leftover, ignore_errors=True)
    except BlockingIOError:
        return  # another merge to the same output is at work
    finally:
        os.close(lock)


def _open_up(working: Path) -> None:
    """Gives the directory the mode that `mkdir` would have: temporary ones are closed to others."""
    probe = working / ".mode"
    probe.mkdir()
    shutil.copymode(probe, working)
    probe.rmdir()


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
