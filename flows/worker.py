"""A run that a Prefect worker started ends with that worker."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STARTED_BY_WORKER = "PREFECT__FLOW_RUN_ID"


def end_with_worker() -> None:
    """Have this process get SIGTERM when its parent dies, by whatever cause, if that is a Prefect worker.

    A worker that is killed can't tell its runs, which would go on and hold GPUs that the next worker takes for free. By
    SIGTERM a run ends in good order: its training saves its state, its lease is released, and it is marked as crashed.
    Linux only; elsewhere nothing happens.
    """
    if STARTED_BY_WORKER not in os.environ or sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died between the two
        os.kill(os.getpid(), signal.SIGTERM)
