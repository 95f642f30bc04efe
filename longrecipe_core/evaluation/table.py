"""Measurements as a table that a person reads in a terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def read_rows(directory: Path) -> list[dict[str, Any]]:
    """Rows of an `evaluation` artifact (see `evaluate.SCHEMA`)."""
    rows: list[dict[str, Any]] = pq.read_table(directory / "evaluation.parquet").to_pylist()
    return rows


def summary(rows: Sequence[dict[str, Any]], window: int, target_length: int) -> dict[str, dict[str, float]]:
    """Per model, mean NLL inside the old window and in the last quarter of the new one, from whole buckets in them."""
    result: dict[str, dict[str, float]] = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        nll = [row for row in rows if row["model"] == model and row["measure"] == "nll"]
        parts = {
            "inside_window": [row for row in nll if row["end"] <= window],
            "last_quarter": [row for row in nll if row["start"] >= target_length * 3 / 4],
        }
        result[model] = {
            name: sum(row["value"] * row["count"] for row in part) / sum(row["count"] for row in part)
            for name, part in parts.items()
            if part
        }
    return result


def text_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line per model, one column per bucket or passkey distance."""
    lines = []
    for measure, head in (
        ("nll", "mean NLL (nats per token) at positions"),
        ("passkey", "passkey accuracy at distance"),
    ):
        part = [row for row in rows if row["measure"] == measure]
        if not part:
            continue
        models = list(dict.fromkeys(row["model"] for row in part))
        places = list(dict.fromkeys((row["start"], row["end"]) for row in part))
        names = [str(end) if start == end else f"{start}-{end}" for start, end in places]
        values = {(row["model"], row["start"], row["end"]): row["value"] for row in part}
        left = max(len(model) for model in models)
        widths = [max(len(name), 6) for name in names]
        lines.append(head)
        lines.append("  ".join([" " * left, *(name.rjust(width) for name, width in zip(names, widths, strict=True))]))
        for model in models:
            cells = [f"{values[model, *place]:.3f}".rjust(width) for place, width in zip(places, widths, strict=True)]
            lines.append("  ".join([model.ljust(left), *cells]))
    return "\n".join(lines)
