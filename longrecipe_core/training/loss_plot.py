"""Loss over the steps of trainings, as a small picture."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.ticker import MaxNLocator

POINTS = 400
"""Of one curve: more than its width in pixels tells nothing."""


def plot_losses(curves: Mapping[str, Sequence[Mapping[str, Any]]], dpi: int = 90) -> bytes:
    """A PNG with one panel per training, of the rows of its `metrics.jsonl`, each panel with axes of its own.

    Of a long training, means over equal numbers of steps are drawn.
    """
    figure = matplotlib.figure.Figure(figsize=(3.4 * len(curves), 2.8), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, rows) in zip(panels, curves.items(), strict=True):
        points = np.array([(row["step"], row["loss"]) for row in rows], dtype=float)
        parts = np.array_split(points, min(len(points), POINTS))
        means = np.array([part.mean(axis=0) for part in parts])
        axes.plot(means[:, 0], means[:, 1], marker="o" if len(means) < 3 else None, linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
    panels[0].set_ylabel("loss (nats per token)", fontsize=8)
    png = io.BytesIO()
    # No software version in the file: the same numbers give the same bytes.
    figure.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
    return png.getvalue()
