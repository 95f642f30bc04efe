"""`metrics.jsonl` as a job writes it: a row per step. Read without torch, by flows that show it."""

import json
from pathlib import Path
from typing import Any

TAIL_BYTES = 32 * 1024


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl`, none where there is no such file; a line cut by a crash is left out."""
    return parse_metrics(path.read_text(encoding="utf-8")) if path.exists() else []


def parse_metrics(text: str) -> list[dict[str, Any]]:
    """Rows of the text of a `metrics.jsonl`; a line cut by a crash is left out."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def last_metrics(path: Path) -> list[dict[str, Any]]:
    """The last rows, some dozens, however long the file is."""
    try:
        with path.open("rb") as file:
            start = max(file.seek(0, 2) - TAIL_BYTES, 0)
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return []
    if start:
        data = data.partition(b"\n")[2]  # a line whose beginning lies before
    return parse_metrics(data.decode("utf-8"))
