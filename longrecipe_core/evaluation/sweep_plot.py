"""A merge sweep as a picture: long against short loss, weights at the points, the knee marked."""

from pathlib import Path
from typing import BinaryIO

import matplotlib.figure

from longrecipe_core.evaluation.sweep import MergeSweep


def plot_sweep(sweep: MergeSweep, title: str, target: Path | BinaryIO, dpi: int = 120) -> None:
    """A PNG, to a path or a file; diverged models are named below the axes, which they would stretch."""
    figure = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    places = [
        (model.scores.short, model.scores.long if model.scores.long is not None else float("nan"))
        for model in sweep.models
    ]
    shown = [place for place in range(len(places)) if place not in sweep.diverged]
    front = [places[place] for place in sweep.front]
    if front:
        axes.plot(*zip(*front, strict=True), color="C0", linewidth=1.2, zorder=1, label="Pareto front")
    if len(front) > 1:
        ends = zip(front[0], front[-1], strict=True)
        axes.plot(*ends, color="gray", linestyle=":", linewidth=1, zorder=0, label="its ends' line")
    for kind, colour, some in (
        ("merges", "C0", [place for place in shown if place in sweep.front]),
        ("others", "lightgray", [place for place in shown if place not in sweep.front]),
    ):
        if some:
            short, long = zip(*(places[place] for place in some), strict=True)
            axes.scatter(short, long, s=36, color=colour, label=kind)
    if sweep.chosen is not None:
        label = "knee" if len(front) > 1 else "best in both"
        short_of_it, long_of_it = places[sweep.chosen]
        axes.scatter(short_of_it, long_of_it, s=240, marker="*", color="C3", zorder=3, label=label)
    for place in shown:
        weight = f"{sweep.models[place].base_weight:g}"
        axes.annotate(weight, places[place], xytext=(7, 5), textcoords="offset points", fontsize="small")
    axes.margins(0.12)
    axes.grid(alpha=0.3)
    axes.set_xlabel("mean NLL inside the base model's window (nats per token)")
    axes.set_ylabel("mean NLL beyond it")
    axes.set_title(f"{title}: merges by weight of the base model", fontsize="medium")
    names = [f"{sweep.models[n].base_weight:g}: {places[n][0]:.3f}, {places[n][1]:.3f}" for n in sweep.diverged]
    if names:
        figure.supxlabel("not shown, diverged: " + "; ".join(names), fontsize="small")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(target, format="png", dpi=dpi, metadata={"Software": None})
