"""How far a stage is: a bar for a person, lines for a log."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tqdm import tqdm

Progress = Callable[[str], None]

_SECONDS_BETWEEN_LINES = 5.0


class Ticker:
    """A progress bar on stderr where a person watches; lines for the callback now and then and at the end."""

    def __init__(self, stage: str, progress: Progress | None) -> None:
        # disable=None: no bar where stderr is no terminal, since its \r lines are lost or garbled in logs.
        self._bar = tqdm(desc=stage, unit=" documents", disable=None)
        self._stage = stage
        self._progress = progress
        self._documents = 0
        self._tokens = 0
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def add(self, documents: int, tokens: int) -> None:
        """Count what has been done since the last call."""
        self._documents += documents
        self._tokens += tokens
        self._bar.update(documents)
        self._bar.set_postfix(tokens=self._tokens, refresh=False)
        if time.monotonic() >= self._next:
            self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if kind is None:
            self._line()

    def _line(self) -> None:
        if self._progress is not None:
            self._progress(f"{self._stage}: {self._documents:,} documents, {self._tokens:,} tokens")
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
