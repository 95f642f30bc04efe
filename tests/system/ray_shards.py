"""Shard functions for Ray workers. `inputs["tokenize"]` is an artifact, beside which each call leaves a file."""

import contextlib
import os
import signal
import time
from pathlib import Path

from longrecipe_core.errors import CorpusError


def stage():
    """What the flow of a test does; put here by the test."""


def note(directory, what, job):
    (Path(directory) / f"{what}-{job}-{os.getpid()}-{time.monotonic_ns()}").touch()


def notes(directory, what="computed"):
    """Jobs in the order of their numbers, one entry per call."""
    return sorted(int(path.name.split("-")[1]) for path in Path(directory).glob(f"{what}-*"))


SEEN = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED")


def square(inputs, job):
    """The artifact's number plus the job's square; the node that it was computed on; what its environment has."""
    import ray

    number, directory = job
    note(directory, "computed", number)
    offset = int((inputs["tokenize"] / "offset.txt").read_text())
    node = ray.get_runtime_context().get_node_id()
    return offset + number * number, node, {name: os.environ.get(name) for name in SEEN}


def square_on_both_nodes(inputs, job):
    meet(Path(job[1]))
    return square(inputs, job)


def meet(directory):
    """Return when both nodes are here, so that none can do it all before the other has begun; gives this one."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    (directory / f"node-{node}").touch()
    while len(list(directory.glob("node-*"))) < 2:
        time.sleep(0.02)
    return node


def killed_once(inputs, job):
    number, directory = job
    note(directory, "begun", number)
    if number == 3 and notes(directory, "begun").count(3) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(inputs, job)[0]


def killed_always(inputs, job):
    number, directory = job
    note(directory, "begun", number)
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fails(inputs, job):
    number, _ = job
    if number == 2:
        raise CorpusError(f"shard {number}: row 17 is no text")
    return number


def noted_encoding(inputs, job):
    from longrecipe_core.corpus.encoding import encode_job

    return _noted(encode_job, inputs, job)


def noted_drawing(inputs, job):
    from longrecipe_core.positions.index import draw_job

    return _noted(draw_job, inputs, job)


def _noted(function, inputs, job):
    """The stage's own function; notes node and process.

    Once both nodes have done one, it is killed if it is the first to find the order to be.
    """
    directory = Path(os.environ["RAY_TEST_NOTES"])
    node = meet(directory)
    (directory / f"begun-{node}-{os.getpid()}-{time.monotonic_ns()}").touch()
    if len({path.name.split("-")[1] for path in directory.glob("done-*")}) == 2:
        with contextlib.suppress(FileNotFoundError):
            (directory / "kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    result = function(inputs, job)
    (directory / f"done-{node}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return result
