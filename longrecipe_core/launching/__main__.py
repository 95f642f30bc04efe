"""`python -m longrecipe_core.launching JOB.json`: this machine's ranks of a job whose flow runs on machine 0."""

import signal
import sys
from pathlib import Path

import psutil

from longrecipe_core.errors import PREEMPTED_EXIT_CODE, JobPreemptedError, LongRecipeError


def main() -> int:
    """Follow the job to its end; the exit code is 0, 1, or `PREEMPTED_EXIT_CODE` after SIGTERM."""
    import torch

    from longrecipe_core.launching.follow import Follower

    def hand_on(number: int, frame: object) -> None:
        """SIGTERM is for the ranks to save; the supervisor, the only child, knows what to do."""
        supervisors = psutil.Process().children()
        if not supervisors:
            raise SystemExit(PREEMPTED_EXIT_CODE)
        for supervisor in supervisors:
            supervisor.terminate()

    signal.signal(signal.SIGTERM, hand_on)
    try:
        Follower(Path(sys.argv[1]), cuda=torch.cuda.is_available(), log=lambda line: print(line, flush=True)).run()
    except LongRecipeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return PREEMPTED_EXIT_CODE if isinstance(error, JobPreemptedError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
