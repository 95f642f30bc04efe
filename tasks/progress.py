"""How far a stage's job is, as a progress artifact of its task run."""

import contextvars
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from longrecipe_core.training.metrics_file import last_metrics
from tasks.names import artifact_key
from tasks.run import Log, Work

Figure = tuple[float, str]

COUNTED = re.compile(r"\b(?:document|model) (\d+) of (\d+)\b")
LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 20.0
"""How long a job's end waits for a server that does not answer to take the last figure."""


class Progress:
    """One progress artifact. What a server does not take is told once in the log, and hinders nothing."""

    def __init__(self, work: Work) -> None:
        """Nothing is shown before the first figure, nor outside a Prefect task run."""
        self._work, self._key = work, artifact_key(work.run.recipe, f"{work.stage.name}-progress")
        self._artifact: UUID | None = None
        self._shown: tuple[float, str] | None = None
        self._told = False

    def show(self, percent: float, line: str) -> None:
        """Show a figure of 0 to 100 and what it means, unless it is there already."""
        if TaskRunContext.get() is None or self._shown == (percent, line):
            return
        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(percent, key=self._key, description=line)  # type: ignore[assignment]
            else:
                update_progress_artifact(self._artifact, percent, description=line)
            self._shown = (percent, line)
        except Exception as error:  # noqa: BLE001 - whatever ails the server, the job goes on
            if not self._told:
                self._told = True
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                self._work.log(f"{self._work.stage.name}: its progress can't be shown for now: {reason}")


@contextmanager
def training_progress(work: Work, metrics: Path) -> Iterator[None]:
    """While a training job runs, show the last step in its `metrics.jsonl`."""

    def figure() -> Figure | None:
        rows = last_metrics(metrics)
        return (100 * rows[-1]["step"] / rows[-1]["steps"], training_line(rows)) if rows else None

    with _followed(work, figure):
        yield


@contextmanager
def counted_progress(work: Work) -> Iterator[Log]:
    """While another job runs, show the last line that counts, as in `model 2 of 5`; yields the log for its lines."""
    last: Figure | None = None

    def log(line: str) -> None:
        nonlocal last
        work.log(line)
        if found := COUNTED.search(line):
            last = (100 * int(found[1]) / int(found[2]), line)

    with _followed(work, lambda: last):
        yield log


@contextmanager
def _followed(work: Work, figure: Callable[[], Figure | None]) -> Iterator[None]:
    """Show what `figure` gives, every few seconds and at the end."""
    progress, done = Progress(work), threading.Event()

    def follow() -> None:
        ended = False
        while not ended:
            ended = done.wait(LOOK_SECONDS)
            if (now := figure()) is not None:
                progress.show(*now)

    # A thread, so that no server's delay holds up the job. Its context tells it the run and the server.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(follow,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(PATIENCE_SECONDS)


def training_line(rows: list[dict[str, Any]]) -> str:
    """`step 40 of 104, loss 2.3412, 5,120 tokens/s, 12 min left`, of the last rows of a `metrics.jsonl`.

    Speed and time left are those of the steps in `rows`.
    """
    last = rows[-1]
    seconds = sum(row["seconds"] for row in rows)
    speed = sum(row["tokens"] for row in rows) / seconds
    left = (last["steps"] - last["step"]) * seconds / len(rows)
    line = f"step {last['step']:,} of {last['steps']:,}, loss {last['loss']:.4f}, {speed:,.0f} tokens/s"
    return f"{line}, {duration(left)} left" if left else line


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `2 d 04 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60:02} h"
