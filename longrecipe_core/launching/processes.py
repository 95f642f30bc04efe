"""All processes of one job, wherever they are in the tree: told by a token in their environment."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

TOKEN_VARIABLE = "LONGRECIPE_JOB"
SUPERVISOR = "longrecipe_core.launching.supervisor"
SHORT_GRACE = 5.0  # seconds from SIGTERM to SIGKILL when nobody waits for the job any more


def job_processes(token: str) -> list[psutil.Process]:
    """Every living process, other than this one, whose environment holds `token`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(TOKEN_VARIABLE) == token:
                found.append(process)
    return found


def wait_for_jobs(directory: Path, log: Callable[[str], None]) -> None:
    """Return when no job of this machine works on files in `directory`, by the paths in its command line.

    A job that was told to end may save its state for longer than its flow lives, and whoever goes on from there must
    not move files under it. Its grace ends the wait.
    """
    told = False
    while jobs := _supervisors_in(directory):
        if not told:
            log(f"waits for process {jobs[0].pid}, which still saves its state in {directory}")
            told = True
        time.sleep(0.5)


def _supervisors_in(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if SUPERVISOR in line and any(Path(word).is_relative_to(directory) for word in line):
                found.append(process)
    return found


def end_job(token: str, grace: float = SHORT_GRACE) -> None:
    """Ask all of a job's processes to end, kill what is left after `grace` seconds, until none remains."""
    for process in job_processes(token):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + grace
    while remaining := job_processes(token):
        if time.monotonic() > deadline:
            for process in remaining:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(0.1)
