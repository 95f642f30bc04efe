"""Shard functions: of a module, since a worker finds them by name. `inputs["notes"]` is a directory for counts."""

import os
import signal
import sys
import time
from pathlib import Path

from longrecipe_core.errors import CorpusError


def square(inputs, job):
    return job * job


def pid(inputs, job):
    return os.getpid()


def note(inputs, job, what="computed"):
    """Leave one file per call, which tells how often a shard was computed, and where."""
    path = Path(inputs["notes"]) / f"{what}-{job}-{os.getpid()}-{time.monotonic_ns()}"
    path.touch()


def notes(directory, what="computed"):
    """Jobs in the order of their numbers, one entry per call."""
    return sorted(int(path.name.split("-")[1]) for path in Path(directory).glob(f"{what}-*"))


def counted_square(inputs, job):
    note(inputs, job)
    return job * job


def killed_once(inputs, job):
    note(inputs, job, "begun")
    if job == 5 and notes(inputs["notes"], "begun").count(5) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    note(inputs, job)
    return job * job


def killed_always(inputs, job):
    note(inputs, job, "begun")
    if job == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def ends(inputs, job):
    os._exit(7)


def slow_first(inputs, job):
    """Shards end in another order than they begin."""
    time.sleep(0.3 if job == 0 else 0.0)
    return job


def fails(inputs, job):
    if job == 3:
        raise CorpusError(f"shard {job}: row 17 is no text")
    return job


class TwoPartsError(Exception):
    """Can't be unpickled: pickle would call it with the one text."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def fails_unsendably(inputs, job):
    raise TwoPartsError("this", "that")


def returns_unsendable(inputs, job):
    return lambda: job


def environment(inputs, job):
    early = [name for name in ("numpy", "pyarrow", "pytest") if name in sys.modules]
    return os.environ["RAYON_NUM_THREADS"], os.environ["OMP_NUM_THREADS"], early


def sleeps(inputs, job):
    note(inputs, job, "begun")
    time.sleep(600)


def prints(inputs, job):
    print("from a worker", flush=True)
    return job


def big(inputs, job):
    return bytes(job)
