"""Measurements that outlive the process: what was measured before a kill is not measured again."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str, str | None, int | None]
"""Model, measure, task, length."""


class Answers:
    """Answers to the prompts of one measurement, by the prompts' places: they outlive the process, batch by batch."""

    def __init__(self, known: Mapping[int, str] | None = None, write: Callable[[dict[int, str]], None] | None = None):
        self._known = dict(known or {})
        self._write = write

    def __contains__(self, place: int) -> bool:
        return place in self._known

    def __getitem__(self, place: int) -> str:
        return self._known[place]

    def note(self, batch: dict[int, str]) -> None:
        """Keep what one batch of prompts was answered."""
        if self._write is not None:
            self._write(batch)
        self._known |= batch


class Measurements:
    """Rows by what they measure; each measurement is a line of JSON in a file, written when it is complete.

    Before that line stands one per batch of answers, for measurements that ask for some: `{"key": …, "answers": {place:
    text}}`. The file belongs to one job: nothing in it tells for which recipe and models it was made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[Key, list[Row]] = {}
        self._answers: dict[Key, dict[int, str]] = {}
        if path.exists():
            whole = path.read_bytes().rpartition(b"\n")[0]
            for line in whole.splitlines():
                entry = json.loads(line)
                key: Key = tuple(entry["key"])
                if "rows" in entry:
                    self._rows[key] = entry["rows"]
                else:
                    answers = {int(place): text for place, text in entry["answers"].items()}
                    self._answers.setdefault(key, {}).update(answers)
            # A line that a kill cut short would spoil the next one.
            os.truncate(path, len(whole) + 1 if whole else 0)

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def take(self, key: Key, measure: Callable[[], list[Row]]) -> list[Row]:
        """The rows of a measurement: those in the file, else what `measure` returns, which is then in the file."""
        if key not in self._rows:
            rows = measure()
            self._append({"key": key, "rows": rows})
            self._rows[key] = rows
        return self._rows[key]

    def answers(self, key: Key) -> Answers:
        """What the prompts of a measurement were answered before a kill; further batches go into the file."""
        return Answers(self._answers.get(key), lambda batch: self._append({"key": key, "answers": batch}))

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
