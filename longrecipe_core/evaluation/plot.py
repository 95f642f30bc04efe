"""Loss by position as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib.figure


def plot_nll(rows: Sequence[dict[str, Any]], window: int | None, target: Path | BinaryIO, dpi: int = 120) -> None:
    """One line per model over the middle of each bucket, with the old window marked; a PNG, to a path or a file."""
    figure = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    models = list(dict.fromkeys(row["model"] for row in rows))
    for model in models:
        part = [row for row in rows if row["model"] == model and row["measure"] == "nll"]
        middle = [(row["start"] + row["end"]) / 2 for row in part]
        axes.plot(middle, [row["value"] for row in part], marker="o", markersize=3, label=model)
    if window is not None:
        axes.axvline(window, color="gray", linestyle=":", label="base model's window")
    axes.set_xlabel("position in the document (tokens)")
    axes.set_ylabel("mean NLL (nats per token)")
    # Below the axes, where it covers no line.
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    # No software version in the file: the same numbers give the same bytes.
    figure.savefig(target, format="png", dpi=dpi, metadata={"Software": None})
