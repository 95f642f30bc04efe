"""Measurements as a table: as it is stored, and as a person reads it in a terminal."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from longrecipe_core.evaluation.measurements import Row

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("measure", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("value", pa.float64()),
        ("standard_error", pa.float64()),
        ("count", pa.int64()),
        ("seed", pa.int64()),
        ("task", pa.string()),
        ("length", pa.int64()),
        ("depth", pa.float64()),
        ("haystack", pa.string()),
        ("metric", pa.string()),
    ]
)
"""Rows of measure `nll` have positions `start..end - 1`, of measure `passkey` the distance in both; of the others see
docs/evaluation.md. A column that says nothing of a measure is null, and tables from before there were the last five
have none of them, or all but `metric`."""


def read_rows(directory: Path) -> list[Row]:
    """Rows of an `evaluation` artifact."""
    rows: list[Row] = pq.read_table(directory / "evaluation.parquet").to_pylist()
    return rows


def weighted_mean(rows: Sequence[Row]) -> float:
    """Of the values, by count."""
    return float(sum(row["value"] * row["count"] for row in rows) / sum(row["count"] for row in rows))


def summary(rows: Sequence[Row], window: int, target_length: int) -> dict[str, dict[str, float]]:
    """Per model, mean NLL inside the old window and in the last quarter of the new one, from whole buckets in them."""
    result: dict[str, dict[str, float]] = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        nll = [row for row in rows if row["model"] == model and row["measure"] == "nll"]
        parts = {
            "inside_window": [row for row in nll if row["end"] <= window],
            "last_quarter": [row for row in nll if row["start"] >= target_length * 3 / 4],
        }
        result[model] = {name: weighted_mean(part) for name, part in parts.items() if part}
    return result


def text_table(rows: Sequence[Row]) -> str:
    """Per measure, and task where it has tasks, a table with a line per model and a column per place or length."""

    def part(measure: str) -> list[Row]:
        return [row for row in rows if row["measure"] == measure]

    def place(row: Row) -> str:
        return str(row["end"]) if row["start"] == row["end"] else f"{row['start']}-{row['end']}"

    def length(row: Row) -> str:
        return str(row["length"])

    def depth(row: Row) -> str:
        return f"{row['length']}@{row['depth']:g}" if row["depth"] is not None else length(row)

    lines = _grid("mean NLL (nats per token) at positions", part("nll"), place, 3)
    lines += _grid("passkey accuracy at distance", part("passkey"), place, 3)
    lines += _grid("share of a copied span that is foretold, at distance", part("copying"), place, 3)
    lines += _grid("mean NLL (nats per token) with a context of", part("context_nll"), length, 3)
    lines += _grid("perplexity at length", part("ppl"), length, 3)
    for task in dict.fromkeys(row["task"] for row in part("long_ppl")):
        own = [row for row in part("long_ppl") if row["task"] == task]
        lines += _grid(f"LongPPL ({task}) at length", own, length, 3)
    for measure, title, column in (("needle", "needle", depth), ("ruler", "RULER", length)):
        for task in dict.fromkeys(row["task"] for row in part(measure)):
            own = [row for row in part(measure) if row["task"] == task]
            lines += _grid(f"{title} {task}, score at length{'@depth' * (column is depth)}", own, column, 1)
    lines += _grid("RULER, mean score at length", part("ruler_mean"), length, 1)
    lines += _grid("RULER, effective length", part("effective_length"), lambda row: "tokens", 0)
    for task in dict.fromkeys(row["task"] for row in part("benchmark")):
        own = [row for row in part("benchmark") if row["task"] == task]
        lines += _grid(f"benchmark {task}", own, lambda row: row["metric"], 3)
    return "\n".join(lines)


def _grid(head: str, rows: Sequence[Row], column: Callable[[Row], str], decimals: int) -> list[str]:
    if not rows:
        return []
    models = list(dict.fromkeys(row["model"] for row in rows))
    names = list(dict.fromkeys(column(row) for row in rows))
    values = {(row["model"], column(row)): row["value"] for row in rows}
    left = max(len(model) for model in models)
    widths = [max(len(name), 6) for name in names]
    lines = [head]
    lines.append("  ".join([" " * left, *(name.rjust(width) for name, width in zip(names, widths, strict=True))]))
    for model in models:
        cells = [f"{values[model, name]:.{decimals}f}".rjust(width) for name, width in zip(names, widths, strict=True)]
        lines.append("  ".join([model.ljust(left), *cells]))
    return lines
