"""How often each relative distance is trained, as a picture."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import matplotlib.ticker
import numpy as np
import numpy.typing as npt

from longrecipe_core.positions.coverage import Coverage

BINS = 200


def plot_coverages(coverages: Sequence[Coverage], title: str, path: Path) -> None:
    """One line per strategy over the distance: trained pairs per distance and sample, on a log axis; a PNG at `path`.

    A point is the mean over a bin, `BINS` bins of about equal width. A bin without pairs is a gap in the line.
    """
    figure = _figure(coverages, (8, 5))
    figure.axes[0].set_title(title)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def coverage_png(coverages: Sequence[Coverage]) -> bytes:
    """The same as a PNG to be read on a phone, without a title."""
    png = io.BytesIO()
    _figure(coverages, (5.2, 3.6)).savefig(png, format="png", dpi=180, metadata={"Software": None})
    return png.getvalue()


def _figure(coverages: Sequence[Coverage], size: tuple[float, float]) -> matplotlib.figure.Figure:
    """`size` in inches."""
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    # Strategies that train the same distances lie on each other: the later line is dashed and lets the earlier through.
    styles = ["-", "-", "-", "-", "--", ":", "-."]
    for number, coverage in enumerate(coverages):
        middles, means = binned(coverage.distance_counts[1:] / coverage.samples)
        means[means == 0] = np.nan
        label = f"{coverage.strategy} (mean {coverage.mean_distance:,.0f})"
        axes.plot(middles, means, linestyle=styles[number % len(styles)], linewidth=1.6, label=label)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("relative distance (tokens)")
    axes.set_ylabel("pairs per distance and sample")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3 if size[0] > 6 else 1, frameon=False)
    return figure


def binned(counts: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Middle distance and mean count of each bin; `counts[i]` belongs to distance `i + 1`."""
    edges = np.unique(np.linspace(0, counts.size, min(BINS, counts.size) + 1).astype(np.int64))
    middles = (edges[:-1] + edges[1:] + 1) / 2
    return middles, np.add.reduceat(counts, edges[:-1]) / np.diff(edges)
