"""Run a command under the supervisor, pass its lines on, and tell why it ended."""

import contextlib
import io
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from longrecipe_core.errors import JobKilledError, JobOutOfMemoryError, LaunchError
from longrecipe_core.launching.memory_kills import memory_kills
from longrecipe_core.launching.outcome import Tail, plain_failure
from longrecipe_core.launching.processes import SUPERVISOR, end_job

CREDENTIAL = re.compile(
    r"^(AWS|AZURE|GOOGLE|GCS|FSSPEC|PREFECT|WANDB)_|(^|_)(TOKEN|KEY|SECRET|PASSWORD|CREDENTIALS?)(_|$)"
)


def run_supervised(
    what: str,
    command: Sequence[str],
    log: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
    *,
    grace: float = 0.0,
    failure: Callable[[str, int, Tail], LaunchError] = plain_failure,
) -> None:
    """Run `command` to its end; should this process go first, by any signal, the whole tree goes with it.

    Args:
        what: Names the job in errors.
        command: Program and arguments.
        log: Called with each line that the job prints.
        environment: Added to this process's own, of which a job gets everything but credentials.
        stop: When it is set, the job is ended.
        grace: Seconds that the command has to save its state when the supervisor gets SIGTERM; 0: it saves nothing.
        failure: Tells why the job failed, of `what`, the supervisor's code (a signal's number negative) and the lines.

    Raises:
        JobOutOfMemoryError: The job was killed, and the kernel has killed for memory meanwhile.
        LaunchError: The job ended with an error; the message has the line that tells why. What kind: see `failure`.
    """
    kills_before = memory_kills()
    token = uuid.uuid4().hex
    tail = Tail()
    # A session of its own: Ctrl-C in a terminal reaches the flow only, whose end then ends the job in good order.
    with subprocess.Popen(
        [sys.executable, "-m", SUPERVISOR, token, str(grace), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**without_credentials(os.environ), **(environment or {})},
        start_new_session=True,
    ) as supervisor:
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        ended = threading.Event()
        pipe = supervisor.stdin
        last_duty = threading.Thread(target=_end_after, args=(supervisor, token), daemon=True)
        last_duty.start()
        if stop is not None:
            threading.Thread(target=_close_when_set, args=(stop, ended, pipe), daemon=True).start()
        try:
            # Lines end at \n only: what a progress bar writes between two \r is no line.
            for line in io.TextIOWrapper(supervisor.stdout, encoding="utf-8", errors="replace", newline="\n"):
                shown = line.rstrip("\n").rpartition("\r")[2]  # of a progress bar, the last state only
                if shown:
                    log(tail.add(shown))
        finally:
            # Closing the pipe ends the job; `with` then waits for the supervisor.
            ended.set()
            _close(pipe)
    last_duty.join()  # ranks whose lines go through files hold no end of the supervisor's output
    if supervisor.returncode:
        if stop is not None and stop.is_set():
            raise LaunchError(f"{what} was told to stop, with code {supervisor.returncode}")
        error = failure(what, supervisor.returncode, tail)
        if isinstance(error, JobKilledError) and memory_kills() != kills_before:
            raise JobOutOfMemoryError(f"{error}; by the kernel, for memory: see docs/memory.md for what takes less")
        raise error


def without_credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a job may see: it works on local files only, so it needs no key to anything."""
    return {name: value for name, value in environment.items() if not CREDENTIAL.search(name)}


def _end_after(supervisor: "subprocess.Popen[bytes]", token: str) -> None:
    """Do the supervisor's last duty if it was killed: without it nobody would end the job."""
    supervisor.wait()
    end_job(token)


def _close_when_set(stop: threading.Event, ended: threading.Event, pipe: IO[bytes]) -> None:
    while not ended.wait(1.0):
        if stop.is_set():
            _close(pipe)
            return


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # of a supervisor that is gone
        pipe.close()
