"""`python -m longrecipe_core.launching WHAT`: this machine's ranks of jobs whose flow runs on machine 0.

WHAT is the job.json of one job, or the flow's store: then each job is followed that the flow starts.
"""

import signal
import sys
from pathlib import Path

import psutil

from longrecipe_core.errors import PREEMPTED_EXIT_CODE, JobPreemptedError, LongRecipeError


def main() -> int:
    """Follow one job to its end, or all; the exit code is 0, 1, or `PREEMPTED_EXIT_CODE` after SIGTERM."""
    import torch

    from longrecipe_core.artifacts import ArtifactStore
    from longrecipe_core.launching.follow import Follower, follow_all

    def hand_on(number: int, frame: object) -> None:
        """SIGTERM is for the ranks to save; the supervisor, the only child, knows what to do."""
        supervisors = psutil.Process().children()
        if not supervisors:
            raise SystemExit(PREEMPTED_EXIT_CODE)
        for supervisor in supervisors:
            supervisor.terminate()

    def log(line: str) -> None:
        print(line, flush=True)

    what = sys.argv[1]
    signal.signal(signal.SIGTERM, hand_on)
    try:
        if what.endswith(".json"):
            Follower(Path(what), cuda=torch.cuda.is_available(), log=log).run()
        else:
            follow_all(ArtifactStore(what).staging, cuda=torch.cuda.is_available(), log=log)
    except LongRecipeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return PREEMPTED_EXIT_CODE if isinstance(error, JobPreemptedError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
