"""A machine other than the main one: runs its ranks in each attempt that the main machine announces."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from longrecipe_core.errors import JobPreemptedError, LaunchError
from longrecipe_core.launching.launch import launch_section, run_machine
from longrecipe_core.launching.machines import (
    BEAT_SECONDS,
    Machine,
    launch_directory,
    main_address,
    read_json,
    write_json,
)

GONE_SECONDS = 60.0  # without a beat, in an attempt
PATIENCE_SECONDS = 3600.0  # for an attempt to be announced: earlier stages, or a restart


class Follower:
    """Follows one job on one machine."""

    def __init__(
        self,
        job: Path,
        *,
        cuda: bool,
        log: Callable[[str], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """`job` is written by the flow, so it need not be there yet; `patience` in seconds, for each attempt."""
        self._job, self._cuda, self._log, self._patience = job, cuda, log, patience
        self._path = launch_directory(job) / "attempt.json"
        self._joined: str | None = None

    def run(self) -> None:
        """Until the job is done.

        Raises:
            JobPreemptedError: This machine was told to end.
            LaunchError: The main machine failed, is gone, or has announced nothing.
        """
        while (attempt := self._next_attempt()) is not None:
            self._joined = attempt
            launch = launch_section(self._job)
            machine = Machine.here(launch.machines)
            if not machine.rank:
                raise LaunchError(f"this is machine 0 of {launch.machines}, which runs the flow itself")
            over, stop = threading.Event(), threading.Event()
            watch = threading.Thread(target=self._stop_with_attempt, args=(over, stop), daemon=True)
            watch.start()
            try:
                run_machine(self._job, launch, machine, cuda=self._cuda, log=self._log, stop=stop)
            except LaunchError as error:
                self._log(str(error))
                if not stop.is_set():
                    verdict = {"attempt": attempt, "kind": type(error).__name__, "message": str(error)}
                    write_json(self._path.with_name(f"machine-{machine.rank}.json"), verdict)
                if isinstance(error, JobPreemptedError):
                    raise
            finally:
                over.set()
                watch.join()

    def _next_attempt(self) -> str | None:
        """The next attempt that is really running; None when the one that was joined has done the job."""
        since, before = time.monotonic(), read_json(self._path)
        while True:
            told = read_json(self._path)
            attempt, state = told.get("attempt"), told.get("state")
            if attempt is not None and attempt == self._joined:
                if state == "done":
                    return None
                if state == "failed":
                    raise LaunchError(f"{self._job}: the job failed, and the main machine's log tells why")
            elif self._joined is not None and (_is_gone(self._job) or _is_gone(self._path.parent)):
                return None  # a stage that has committed removes them, perhaps before "done" was seen here
            # A beat that was seen to change: what a killed flow left behind has none.
            elif state == "running" and (attempt, told["beat"]) != (before.get("attempt"), before.get("beat")):
                return str(attempt)
            if time.monotonic() - since > self._patience:
                raise LaunchError(
                    f"{self._job}: the main machine announced no attempt in {self._patience:.0f} s; does its flow run, "
                    f"with launch.machines above 1 and its store or cache on this shared directory?"
                )
            time.sleep(BEAT_SECONDS / 2)

    def _stop_with_attempt(self, over: threading.Event, stop: threading.Event) -> None:
        last, since = read_json(self._path), time.monotonic()
        while not over.wait(BEAT_SECONDS):
            told = read_json(self._path)
            if told.get("attempt") not in (None, self._joined) or told.get("state") in ("ended", "failed"):
                stop.set()
            if told != last:
                last, since = told, time.monotonic()
            elif time.monotonic() - since > GONE_SECONDS:
                self._log(f"no sign of the main machine's flow in {GONE_SECONDS:.0f} s: its ranks here are ended")
                stop.set()


def follow_all(staging: Path, *, cuda: bool, log: Callable[[str], None]) -> NoReturn:
    """Follow each job that this machine's main one announces, until this process is ended.

    `staging` is where the flow's stages work. What else is found there belongs to other main machines, told by
    `LONGRECIPE_MAIN_ADDRESS`, or was left by killed flows, and is let be.

    Raises:
        JobPreemptedError: This machine was told to end.
        LaunchError: The environment doesn't tell where the main machine is.
    """
    main, seen = list(main_address()), dict[Path, tuple[Any, Any]]()
    while True:
        for path in _attempts(staging):
            told = read_json(path)
            before, seen[path] = seen.get(path), (told.get("attempt"), told.get("beat"))
            # Not at first sight: what a killed flow left behind has no beat that changes.
            if told.get("main") == main and told.get("state") == "running" and before not in (None, seen[path]):
                try:
                    Follower(path.parent.with_suffix(".json"), cuda=cuda, log=log, patience=GONE_SECONDS).run()
                except JobPreemptedError:
                    raise
                except LaunchError as error:  # of this job; the flow may go on with another
                    log(str(error))
        time.sleep(BEAT_SECONDS)


def _attempts(staging: Path) -> list[Path]:
    """Of all jobs; none where the directory is not there yet, or fails, as shared ones do for moments."""
    try:
        return list(staging.glob(f"*/{launch_directory(Path('*'))}/attempt.json"))
    except OSError:
        return []


def _is_gone(path: Path) -> bool:
    """Whether it is known to be gone; a shared directory that can't be read tells nothing."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
