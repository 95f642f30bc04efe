"""Measurements that outlive the process: what was measured before a kill is not measured again."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str, str | None, int | None]
"""Model, measure, task, length."""


class Measurements:
    """Rows by what they measure; each measurement is a line of JSON in a file, written when it is complete.

    The file belongs to one job: nothing in it tells for which recipe and models it was made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[Key, list[Row]] = {}
        if path.exists():
            whole = path.read_bytes().rpartition(b"\n")[0]
            for line in whole.splitlines():
                entry = json.loads(line)
                self._rows[tuple(entry["key"])] = entry["rows"]
            # A line that a kill cut short would spoil the next one.
            os.truncate(path, len(whole) + 1 if whole else 0)

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def take(self, key: Key, measure: Callable[[], list[Row]]) -> list[Row]:
        """The rows of a measurement: those in the file, else what `measure` returns, which is then in the file."""
        if key not in self._rows:
            rows = measure()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "rows": rows}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._rows[key] = rows
        return self._rows[key]
