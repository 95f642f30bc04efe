"""Why a job ended: from what it printed, rank by rank, and from how its ranks' processes ended."""

import json
import re
import signal
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from longrecipe_core.errors import (
    PREEMPTED_EXIT_CODE,
    JobKilledError,
    JobPreemptedError,
    LaunchError,
    RendezvousError,
)

TAIL_LINES = 60
# What torchrun is told to put before each rank's lines; torch puts the same before tracebacks of a rank.
RANK_PREFIX = "[rank${rank}]: "
RANK = re.compile(r"^\[rank(\d+)\]: ")
TIMED_OUT = re.compile(r"[Tt]imed out (waiting|after)|collective operation timeout|Wait timeout|[Tt]imeout.*barrier")
LOST = re.compile(r"[Cc]onnection (was )?(closed|reset|refused)|[Bb]roken pipe|remote process exited|no error message")
# Of stores and process groups that are made at the start only: torch's TCPStore and torchrun, gloo.
APART = re.compile(
    r"while trying to connect to|waiting for clients|EADDRINUSE|Rendezvous(Connection|Timeout|Closed|State)Error|"
    r"connectFullMesh failed"
)
ENDED_LATE = 5  # seconds; torchrun gives the others 30 after the first that failed, then kills them


class Tail:
    """The last lines of a job, those of each rank by themselves."""

    def __init__(self) -> None:
        """Empty."""
        self._lines: dict[int | None, deque[str]] = {}

    def add(self, line: str) -> str:
        """Keep a line; return it as it is to be shown, with its rank once, as `[rank1]: `."""
        found = RANK.match(line)
        text, rank = line, None
        if found:
            rank = int(found[1])
            while line.startswith(found[0], len(line) - len(text)):
                text = text[len(found[0]) :]
            line = found[0] + text
        self._lines.setdefault(rank, deque(maxlen=TAIL_LINES)).append(text)
        return line

    def of(self, rank: int | None) -> list[str]:
        """A rank's lines, without their prefix; of None those that are no rank's."""
        return list(self._lines.get(rank, ()))

    def ranks(self) -> list[int]:
        """The ranks that have printed anything."""
        return sorted(rank for rank in self._lines if rank is not None)


def error_line(lines: list[str]) -> str | None:
    """The first line that reads `SomeError: ...`, which the others follow from."""
    for line in lines:
        name, separator, _ = line.partition(": ")
        if separator and name.rpartition(".")[2].endswith("Error") and " " not in name:
            return line
    return None


def cause(lines: list[str]) -> str:
    """The line that tells why: the first that reads `SomeError: ...`, else the last one."""
    return error_line(lines) or (lines[-1] if lines else "it printed nothing")


def killed_by(number: int) -> str:
    """`was killed by SIGKILL`, of a signal's number."""
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"was killed by signal {number}"


def plain_failure(what: str, code: int, tail: Tail) -> LaunchError:
    """Of a job that is one process: `code` as the supervisor ended, negative if that was killed itself."""
    if code < 0:
        return JobKilledError(f"{what}: its supervisor {killed_by(-code)}")
    if code > 128:
        return JobKilledError(f"{what} {killed_by(code - 128)}; its last line: {cause(tail.of(None))}")
    return LaunchError(f"{what} ended with code {code}: {cause(tail.of(None))}")


@dataclass(frozen=True)
class RankFailure:
    """How one rank's process ended, and when: `code` as of `subprocess`, a signal's number negative."""

    rank: int
    code: int
    second: int


@dataclass(frozen=True)
class Outcome:
    """What the agent wrote: whether it was told to end by SIGTERM, and its failed ranks in the order it saw them."""

    told_to_end: bool = False
    failures: tuple[RankFailure, ...] = field(default=())

    @classmethod
    def read(cls, path: Path) -> "Outcome | None":
        """None where the agent was killed before it could write."""
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        return cls(found["told_to_end"], tuple(RankFailure(**row) for row in found["failures"]))


def training_failure(
    what: str, code: int, tail: Tail, path: Path, *, ranks: range, collective_timeout: int
) -> LaunchError:
    """Of a training job: which rank ended of what.

    Args:
        what: Names the job.
        code: The supervisor's, negative if it was killed itself.
        tail: What the job printed.
        path: Where its agent has told how the ranks ended.
        ranks: The ranks of this machine.
        collective_timeout: Seconds after which ranks give up waiting for another.
    """
    outcome = Outcome.read(path)
    if len(ranks) == 1:
        tail = _of_one_rank(tail, ranks[0])
    if code < 0:
        return JobKilledError(f"{what}: its supervisor {killed_by(-code)}")
    if code == PREEMPTED_EXIT_CODE:
        return JobPreemptedError(f"{what} was preempted: {_saved(tail, ranks)}")
    if outcome is None or not outcome.failures:
        if code > 128:
            return JobKilledError(f"{what}: its launcher {killed_by(code - 128)}")
        kind = RendezvousError if APART.search(cause(tail.of(None))) else LaunchError
        return kind(f"{what} ended with code {code}: {cause(tail.of(None))}")
    return _rank_failure(what, code, tail, outcome.failures, ranks, collective_timeout)


def last_lines(directory: Path, ranks: range, count: int = 10) -> list[str]:
    """What each rank printed last, of the files that torchrun keeps, for where it was killed before it passed them on.

    `directory` is its `--log_dir`.
    """
    lines = []
    for path in sorted(directory.glob("*/attempt_0/*/std*.log")):
        rank = ranks[int(path.parent.name)]
        text = path.read_text(encoding="utf-8", errors="replace").splitlines()
        lines += [f"[rank{rank}]: {line}" for line in text[-count:]]
    return lines


def _of_one_rank(tail: Tail, rank: int) -> Tail:
    """A single rank is started without torchrun, so that its lines have no prefix."""
    named = Tail()
    for line in [*tail.of(None), *tail.of(rank)]:
        named.add(f"[rank{rank}]: {line}")
    return named


def _saved(tail: Tail, ranks: range) -> str:
    for rank in ranks:
        for line in tail.of(rank):
            if line.startswith("PreemptedError: "):
                return f"rank {rank}: {line}"
    return "it saved nothing after it was told to end by SIGTERM, and can go on from its newest checkpoint"


def _rank_failure(
    what: str, code: int, tail: Tail, failures: tuple[RankFailure, ...], ranks: range, collective_timeout: int
) -> LaunchError:
    first = failures[0].second
    waited = [f.rank for f in failures if any(TIMED_OUT.search(line) for line in tail.of(f.rank))]
    killed = [
        f
        for f in failures
        if f.code < 0 and f.code != -signal.SIGTERM and f.second - first < ENDED_LATE and f.rank not in waited
    ]
    if killed:
        who = "; ".join(f"rank {f.rank} {killed_by(-f.code)}" for f in killed)
        return JobKilledError(f"{what}: {who}; its last line: {cause(tail.of(killed[0].rank))}")
    told = {f.rank: cause(tail.of(f.rank)) for f in failures}
    apart = [rank for rank in told if APART.search(told[rank])]
    if apart and all(f.code < 0 or f.rank in apart or LOST.search(told[f.rank]) for f in failures):
        return RendezvousError(f"{what}: its ranks did not find each other: rank {apart[0]}: {told[apart[0]]}")
    if waited:
        # A rank that came to an end by itself was there, whatever it met; one that torchrun had to end was not.
        absent = [f.rank for f in failures if f.code < 0 and f.rank not in waited]
        who = f"rank {', '.join(map(str, absent))} did not arrive" if absent else "which rank did not arrive is unknown"
        return LaunchError(
            f"{what}: a collective timed out after launch.collective_timeout {collective_timeout} s: {who}; "
            f"rank {waited[0]}: {cause(tail.of(waited[0]))}"
        )
    if failures[0].code == -signal.SIGTERM:
        return JobKilledError(f"{what}: rank {failures[0].rank} {killed_by(signal.SIGTERM)}")
    # One that lost its connection to another only tells that the other ended; one that saved was told to.
    causes = {f.rank: told[f.rank] for f in failures if f.code >= 0}
    own = [f.rank for f in failures if f.rank in causes and f.code != PREEMPTED_EXIT_CODE]
    saved = [rank for rank in causes if rank not in own]
    rank = next((rank for rank in own if not LOST.search(causes[rank])), None)
    if rank is None and saved:
        return JobPreemptedError(f"{what} was preempted: {_saved(tail, ranks)}")
    rank = next(iter(causes)) if rank is None else rank
    return LaunchError(f"{what} ended with code {code}: rank {rank}: {causes[rank]}")
