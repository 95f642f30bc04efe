"""A process between the flow and the job: when the flow goes, by any signal, the whole job goes (traps, 12 and 17).

`python -m longrecipe_core.launching.supervisor TOKEN GRACE COMMAND...` holds the read end of a pipe (its stdin) whose
write end only the parent has. End of file means that the parent is gone. torchrun's workers have sessions of their own
and lose their parent when it dies hard, so the job's processes are told by TOKEN in their environment, not by descent.

The command's stdin is a pipe too, whose write end only the supervisor has: the launcher reads it (see `agent`), so that
a job ends also where the parent and the supervisor are killed together.
"""

import contextlib
import ctypes
import os
import select
import signal
import stat
import subprocess
import sys
import time

from longrecipe_core.errors import PREEMPTED_EXIT_CODE
from longrecipe_core.launching.processes import SHORT_GRACE, TOKEN_VARIABLE, end_job

PARENT_GONE = 143
POLL_SECONDS = 0.2
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SIGNAL_SECONDS = 2.0  # within which a scheduler that signals all processes of a step has reached each
MARGIN = 10.0  # the launcher's own time to tell how its ranks ended


def main() -> int:
    """Run the command; return its exit code, or end it when stdin closes.

    SIGTERM is handed on to the command once, which then has GRACE seconds to save what it has and end, whether the
    parent is still there or not; the exit code is `PREEMPTED_EXIT_CODE`, or 0 where the command had done its work. With
    GRACE 0 there is nothing to save: the job is ended as when the parent is gone.
    """
    token, grace, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, frame: told.append(received))
    _adopt_orphans()
    # What the command's pipe is for is its end, so nothing is ever written to it.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, TOKEN_VARIABLE: token})
    deadline: float | None = None
    watched, output = [sys.stdin.fileno()], _own_output()
    try:
        while child.poll() is None:
            readable, _, _ = select.select(watched, [], [], POLL_SECONDS)
            if readable and not os.read(readable[0], 65536):
                if not grace or not _told_soon(told):
                    return PARENT_GONE
                watched = output  # read in the parent's place: a full or broken pipe would keep the ranks from saving
            if told and not grace:
                return PARENT_GONE
            if told and deadline is None:
                deadline = time.monotonic() + grace + MARGIN
                child.terminate()
                print(f"the job was told to end by {signal.Signals(told[0]).name}", flush=True)
            if deadline is not None and time.monotonic() > deadline:
                break
        if told and child.returncode != 0:
            return PREEMPTED_EXIT_CODE
        return child.returncode if child.returncode >= 0 else 128 - child.returncode
    finally:
        # Also after a normal end: a launcher that was killed leaves its ranks behind.
        end_job(token)
        child.wait()
        _reap()


def _own_output() -> list[int]:
    """A read end of the pipe that is stdout, so that it outlives the parent; none where stdout is no pipe."""
    with contextlib.suppress(OSError):  # Linux only
        if stat.S_ISFIFO(os.fstat(1).st_mode):
            return [os.open("/proc/self/fd/1", os.O_RDONLY)]
    return []


def _told_soon(told: list[int]) -> bool:
    """Whether the signal that ended the parent comes here, too."""
    deadline = time.monotonic() + SIGNAL_SECONDS
    while not told and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(told)


def _adopt_orphans() -> None:
    """Become the parent of ranks whose launcher was killed: in a container nobody else may wait for them."""
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap() -> None:
    """Wait for all that was adopted, which was killed and ends within moments."""
    deadline = time.monotonic() + SHORT_GRACE
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
