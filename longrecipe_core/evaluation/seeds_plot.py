"""A comparison as a picture: loss by position and copying by distance, with error bars over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure

from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.over_seeds import over_seeds
from longrecipe_core.evaluation.seeds_rows import names, places, values, window_of

TITLES = {
    "nll": ("position in the document (tokens)", "mean NLL (nats per token)"),
    "copying": ("distance of the copy (tokens)", "share of copied tokens that are foretold"),
    "passkey": ("distance of the key (tokens)", "share of keys found"),
}


def plot_comparison(rows: Sequence[Row], target: Path, measures: Sequence[str] = ("nll", "copying")) -> None:
    """One panel per measure that was taken, a line per model with its standard error over seeds; a PNG.

    References, which are not trained, are dashed.
    """
    taken = [measure for measure in measures if places(rows, measure)]
    figure = matplotlib.figure.Figure(figsize=(7 * len(taken), 5.5), layout="constrained")
    every = figure.subplots(1, len(taken), squeeze=False)[0]
    for axes, measure in zip(every, taken, strict=True):
        _panel(axes, rows, measure)
    # Below the panels, once, where it covers no line.
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    # No software version in the file: the same numbers give the same bytes.
    figure.savefig(target, format="png", dpi=110, metadata={"Software": None})


def _panel(axes: Any, rows: Sequence[Row], measure: str) -> None:
    where = places(rows, measure)
    middles = [(start + end) / 2 for start, end in where]
    for group, style in (("references", "--"), ("variants", "-")):
        for name in names(rows, group):
            means = [over_seeds(list(values(rows, name, measure, place).values())) for place in where]
            axes.errorbar(
                middles,
                [mean.value for mean in means],
                yerr=None if group == "references" else [mean.standard_error for mean in means],
                linestyle=style,
                color="gray" if name == "base" else "black" if group == "references" else None,
                marker="o",
                markersize=3,
                capsize=2,
                linewidth=1,
                label=name,
            )
    axes.axvline(window_of(rows), color="gray", linestyle=":", label="base model's window")
    axes.set_xlabel(TITLES[measure][0])
    axes.set_ylabel(TITLES[measure][1])
