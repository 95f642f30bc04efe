"""`accelerate launch` in a process that also tells how each rank ended, and lets ranks save when it gets SIGTERM.

`python -m longrecipe_core.launching.agent OUTCOME GRACE ARGUMENTS...`, ARGUMENTS those of `accelerate launch`. torchrun
itself answers SIGTERM by ending its ranks and then itself with a traceback, so what became of the ranks is lost.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from longrecipe_core.errors import PREEMPTED_EXIT_CODE
from longrecipe_core.launching.processes import TOKEN_VARIABLE, end_job

# Read by torchrun: SIGTERM is then left to the handler below.
SIGNALS_VARIABLE, SIGNALS = "PET_SIGNALS_TO_HANDLE", "SIGINT,SIGHUP,SIGQUIT"


class Agent:
    """One launch: whether it was told to end, and how its ranks did."""

    def __init__(self, outcome: Path, grace: float) -> None:
        """`outcome` is written at the end; ranks have `grace` seconds after SIGTERM before they are killed."""
        self._outcome, self._grace, self._told = outcome, grace, False

    def launch(self, arguments: list[str]) -> int:
        """Run `accelerate launch ARGUMENTS`; return 0, or 1 when a rank failed, or `PREEMPTED_EXIT_CODE`."""
        signal.signal(signal.SIGTERM, lambda number, frame: self._tell_ranks())
        # Imported here: until they are, which takes seconds, SIGTERM must already be in good hands.
        from accelerate.commands.launch import launch_command, launch_command_parser
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        try:
            launch_command(launch_command_parser().parse_args(arguments))
        except ChildFailedError as error:  # in the order in which torchrun noticed them
            return self._end([(rank, f.exitcode, f.timestamp) for rank, f in error.failures.items()])
        except subprocess.CalledProcessError as error:  # of a single rank, which accelerate starts without torchrun
            return self._end([(0, error.returncode, int(time.time()))])
        return 0

    def _end(self, failures: list[tuple[int, int, int]]) -> int:
        rows = [{"rank": rank, "code": code, "second": second} for rank, code, second in failures]
        partial = self._outcome.with_suffix(".partial")
        partial.write_text(json.dumps({"told_to_end": self._told, "failures": rows}))
        partial.replace(self._outcome)
        # Ranks that were told by somebody else and saved; after a real failure some may end so, too, told by torchrun.
        saved = bool(failures) and {code for _, code, _ in failures} <= {PREEMPTED_EXIT_CODE, -signal.SIGTERM}
        return PREEMPTED_EXIT_CODE if self._told or (saved and failures[0][1] == PREEMPTED_EXIT_CODE) else 1

    def _tell_ranks(self) -> None:
        """Hand SIGTERM on to the ranks, once however often it comes: a second one can't hurry them."""
        if self._told:
            return
        self._told = True
        ranks = psutil.Process().children()
        if not ranks:  # nothing was started yet
            os._exit(self._end([]))
        _signal(ranks, signal.SIGTERM)
        timer = threading.Timer(self._grace, _signal, (ranks, signal.SIGKILL))
        timer.daemon = True
        timer.start()


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _end_with_supervisor() -> None:
    """End the job when stdin does: its other end is with the supervisor, which is there as long as the job is."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None:
        end_job(token)
    os._exit(1)


def main() -> int:
    """Launch as the arguments say."""
    outcome, grace, arguments = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    os.environ[SIGNALS_VARIABLE] = SIGNALS
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # torchrun writes the ranks' lines to it
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    return Agent(outcome, grace).launch(arguments)


if __name__ == "__main__":
    sys.exit(main())
