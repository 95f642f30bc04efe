"""Loss by position as a picture."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib.figure


def plot_nll(
    rows: Sequence[dict[str, Any]],
    window: int | None,
    target: Path | BinaryIO,
    dpi: int = 120,
    size: tuple[float, float] = (8, 5),
) -> None:
    """One line per model over the middle of each bucket, with the old window marked; a PNG, to a path or a file.

    `size` is in inches, of letters of a tenth of one: what is to be read on a phone is 5 wide.
    """
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
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
    figure.legend(loc="outside lower center", ncols=3 if size[0] > 6 else 2, frameon=False)
    # No software version in the file: the same numbers give the same bytes.
    figure.savefig(target, format="png", dpi=dpi, metadata={"Software": None})


def plot_needles(rows: Sequence[dict[str, Any]], target: Path | BinaryIO, dpi: int = 120) -> None:
    """A heat map of needles found, depth over length, for each model and task with depths; a PNG."""
    cells = [row for row in rows if row["measure"] == "needle" and row["depth"] is not None]
    models, tasks = (list(dict.fromkeys(row[key] for row in cells)) for key in ("model", "task"))
    lengths, depths = (sorted({row[key] for row in cells}) for key in ("length", "depth"))
    figure = matplotlib.figure.Figure(figsize=(2 + 3 * len(models), 1 + 3 * len(tasks)), layout="constrained")
    every = figure.subplots(len(tasks), len(models), squeeze=False)
    for axes, (task, model) in zip(every.flat, itertools.product(tasks, models), strict=True):
        found = {
            (row["depth"], row["length"]): row["value"] for row in cells if (row["task"], row["model"]) == (task, model)
        }
        grid = [[found[depth, length] for length in lengths] for depth in depths]
        shown = axes.imshow(grid, vmin=0, vmax=100, cmap="RdYlGn", aspect="auto")
        axes.set_title(f"{model}\n{task}", fontsize="small")
        axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], rotation=45, fontsize="small")
        axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize="small")
    figure.supxlabel("length (tokens)")
    figure.supylabel("depth of the needle")
    figure.colorbar(shown, ax=every, label="score")
    figure.savefig(target, format="png", dpi=dpi, metadata={"Software": None})
