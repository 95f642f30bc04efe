"""Several machines of one job: which one this is, and how the others follow the main one from attempt to attempt.

The machines share a directory. The main machine's flow writes `attempt.json` there: which attempt is running, with a
beat that shows that the flow is alive. The others start their ranks when an attempt is announced, end them when it is
over, and tell in `machine-N.json` how theirs failed, since ranks elsewhere only see a lost connection.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any, Self

from longrecipe_core.errors import (
    JobKilledError,
    JobOutOfMemoryError,
    JobPreemptedError,
    LaunchError,
    RendezvousError,
)
from longrecipe_core.launching.outcome import LOST

MACHINE_RANK, MAIN_ADDRESS = "LONGRECIPE_MACHINE_RANK", "LONGRECIPE_MAIN_ADDRESS"
SLURM_RANK = "SLURM_NODEID"
BEAT_SECONDS = 1.0
VERDICT_SECONDS = 15.0  # a machine whose ranks failed tells so within, however slow the shared directory
AGAIN = (JobKilledError, JobPreemptedError, RendezvousError)  # after these another attempt may follow
KINDS: dict[str, type[LaunchError]] = {k.__name__: k for k in (LaunchError, JobOutOfMemoryError, *AGAIN)}


@dataclass(frozen=True)
class Machine:
    """This machine among those of a job, and where the main one listens."""

    rank: int
    machines: int
    host: str
    port: int

    @classmethod
    def here(cls, machines: int, environment: Mapping[str, str] = os.environ) -> Self:
        """As the environment tells; of one machine nothing needs to be told.

        Raises:
            LaunchError: A variable is missing or no good.
        """
        if machines == 1:
            return cls(0, 1, "127.0.0.1", free_port())
        name = MACHINE_RANK if MACHINE_RANK in environment else SLURM_RANK
        rank = environment.get(name, "")
        if not rank:
            raise LaunchError(f"launch.machines is {machines}: set {MACHINE_RANK} to this machine's number, 0 the main")
        if not rank.isdecimal() or int(rank) >= machines:
            raise LaunchError(f"{name} is {rank!r}: with launch.machines {machines} it is one of 0 to {machines - 1}")
        return cls(int(rank), machines, *main_address(environment))


def main_address(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Host and port of the main machine, as the environment tells.

    Raises:
        LaunchError: The variable is missing or no good.
    """
    told = environment.get(MAIN_ADDRESS, "")
    host, _, port = told.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise LaunchError(
            f"{MAIN_ADDRESS} is {told!r}: with launch.machines above 1 it is HOST:PORT of machine 0, a free port that "
            f"all machines reach"
        )
    return host.strip("[]"), int(port)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch_directory(job: Path) -> Path:
    """Where the launchers of a job keep what is theirs."""
    return job.with_suffix(".launch")


def write_json(path: Path, value: dict[str, Any]) -> None:
    """All or nothing, for readers on other machines."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Empty where there is none, or where a shared directory shows half of it."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


class Leader:
    """One attempt, announced to the other machines while the `with` block runs it on this one.

    `stop` ends it: when the given event is set, or when another machine has failed and the ranks here go on waiting.
    """

    def __init__(self, directory: Path, main: Machine, grace: float, stop: threading.Event | None) -> None:
        """`directory` is shared; `grace` is what ranks elsewhere have to save after SIGTERM, in seconds."""
        self.stop = threading.Event()
        self._directory, self._main, self._grace, self._asked = directory, main, grace, stop
        self._attempt, self._beat, self._over = uuid.uuid4().hex, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="machines", daemon=True)

    def __enter__(self) -> Self:
        """Announce it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._tell("running")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tell the others how it ended; another machine's failure that explains the one here is raised instead."""
        self._over.set()
        self._thread.join()
        verdict = self._verdict()
        if isinstance(error, LaunchError) and LOST.search(str(error)):
            deadline = time.monotonic() + VERDICT_SECONDS
            while verdict is None and time.monotonic() < deadline:
                time.sleep(BEAT_SECONDS / 2)
                verdict = self._verdict()
        explains = isinstance(error, LaunchError) and (self.stop.is_set() or LOST.search(str(error)) is not None)
        told = verdict if verdict is not None and explains else error
        if told is None:
            self._tell("done")
        else:
            self._tell("ended" if isinstance(told, AGAIN) else "failed")
        if told is not None and told is not error and not (self._asked and self._asked.is_set()):
            raise told from None

    def _watch(self) -> None:
        failed_at: float | None = None
        while not self._over.wait(BEAT_SECONDS):
            self._beat += 1
            with contextlib.suppress(OSError):  # a shared directory fails for moments; the next beat tries again
                self._tell("running")
            if self._asked is not None and self._asked.is_set():
                self.stop.set()
            verdict = self._verdict()
            if verdict is not None:
                failed_at = failed_at or time.monotonic()
                patience = VERDICT_SECONDS + (self._grace if isinstance(verdict, JobPreemptedError) else 0)
                if time.monotonic() - failed_at > patience:
                    self.stop.set()

    def _tell(self, state: str) -> None:
        main = [self._main.host, self._main.port]
        told = {"attempt": self._attempt, "state": state, "beat": self._beat, "main": main}
        write_json(self._directory / "attempt.json", told)

    def _verdict(self) -> LaunchError | None:
        for number in range(1, self._main.machines):
            told = read_json(self._directory / f"machine-{number}.json")
            if told.get("attempt") == self._attempt and not LOST.search(told["message"]):
                return KINDS[told["kind"]](f"machine {number}: {told['message']}")
        return None
