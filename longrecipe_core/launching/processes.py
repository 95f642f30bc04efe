"""All processes of one job, wherever they are in the tree: told by a token in their environment."""

import contextlib
import os
import time

import psutil

TOKEN_VARIABLE = "LONGRECIPE_JOB"
SHORT_GRACE = 5.0  # seconds from SIGTERM to SIGKILL when nobody waits for the job any more


def job_processes(token: str) -> list[psutil.Process]:
    """Every living process, other than this one, whose environment holds `token`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(TOKEN_VARIABLE) == token:
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
