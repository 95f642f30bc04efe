"""`python -m longrecipe_core.launching.preempt`: the training jobs of this machine save their state and end.

For schedulers that signal the flow only, or kill what the flow leaves behind in its container or Slurm step.
"""

import contextlib
import os

import psutil

from longrecipe_core.launching.processes import SUPERVISOR

SLURM_JOB = "SLURM_JOB_ID"


def main() -> None:
    """SIGTERM to each supervisor of this container, machine or Slurm job; return when all are gone."""
    supervisors = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # of a process that has just ended, or is another user's
            if SUPERVISOR in process.cmdline() and process.environ().get(SLURM_JOB) == os.environ.get(SLURM_JOB):
                process.terminate()
                supervisors.append(process)
    psutil.wait_procs(supervisors)


if __name__ == "__main__":
    main()
