"""Run a command under the supervisor, pass its lines on, and tell why it ended."""

import os
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from longrecipe_core.errors import LaunchError

TAIL_LINES = 60


def run_supervised(
    what: str,
    command: Sequence[str],
    log: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run `command` to its end; should this process go first, by any signal, the whole tree goes with it.

    Args:
        what: Names the job in errors.
        command: Program and arguments.
        log: Called with each line that the job prints.
        environment: Added to this process's own.

    Raises:
        LaunchError: The job ended with an error; the message has the line that tells why.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    # A session of its own: Ctrl-C in a terminal reaches the flow only, whose end then ends the job in good order.
    with subprocess.Popen(
        [sys.executable, "-m", "longrecipe_core.launching.supervisor", uuid.uuid4().hex, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        text=True,
        errors="replace",
        start_new_session=True,
    ) as supervisor:
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        try:
            for line in supervisor.stdout:
                shown = line.rstrip("\n").rpartition("\r")[2]  # of a progress bar, the last state only
                if shown:
                    tail.append(shown)
                    log(shown)
        finally:
            # Closing the pipe ends the job; `with` then waits for the supervisor.
            supervisor.stdin.close()
    if supervisor.returncode:
        raise LaunchError(f"{what} ended with code {supervisor.returncode}: {cause(list(tail))}")


def cause(tail: Sequence[str]) -> str:
    """The line of a job's output that tells why it ended: the first that reads `SomeError: ...`, else the last one."""
    for line in tail:
        text = line.partition("]: ")[2] or line  # torchrun puts "[rank0]: " in front
        name, separator, _ = text.partition(": ")
        if separator and name.rpartition(".")[2].endswith("Error") and " " not in name:
            return text
    return tail[-1] if tail else "it printed nothing"
