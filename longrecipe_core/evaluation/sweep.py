"""Merges of two models at several weights: long against short score, and the knee."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from longrecipe_core.evaluation.comparison import Scores, scores
from longrecipe_core.evaluation.knee import DIVERGED, find_knee
from longrecipe_core.evaluation.measurements import Row

LESS_IS_BETTER = ("perplexity", "bits_per_byte")
"""Endings of the names of those metrics of benchmarks; they are in no mean."""


class SweptModel(BaseModel):
    """One merge: the base model's weight in it, its scores, the mean over benchmarks, and where it lies."""

    model_config = ConfigDict(frozen=True)

    base_weight: float
    scores: Scores
    benchmarks: float | None = None
    uri: str


class MergeSweep(BaseModel):
    """All merges of a sweep by rising weight; numbers in the other fields are places among them."""

    model_config = ConfigDict(frozen=True)

    models: tuple[SweptModel, ...]
    chosen: int | None
    """The knee, or the one that is best in both scores."""
    verdict: str
    front: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()

    @classmethod
    def of(cls, models: Sequence[SweptModel]) -> Self:
        """Find the knee of long against short loss (`knee.find_knee`)."""
        models = tuple(sorted(models, key=lambda model: model.base_weight))
        if any(model.scores.long is None for model in models):
            return cls(
                models=models,
                chosen=None,
                verdict="no knee: no evaluated document reaches beyond the base model's window",
            )
        knee = find_knee([(m.scores.short, math.nan if m.scores.long is None else m.scores.long) for m in models])
        weight = None if knee.place is None else f"{models[knee.place].base_weight:g}"
        verdict = {
            "knee": f"knee at base weight {weight}",
            "no trade-off": f"no trade-off: base weight {weight} is best at short and at long length",
            "none": "no knee: no weight between the best at short and the best at long length loses less than it gains",
        }[knee.found]
        if knee.diverged:
            left_out = ", ".join(f"{models[place].base_weight:g}" for place in knee.diverged)
            verdict += f" (left out as diverged, more than {DIVERGED:g} nat above the best: {left_out})"
        return cls(models=models, chosen=knee.place, verdict=verdict, front=knee.front, diverged=knee.diverged)

    def mark(self, place: int) -> str:
        """What is to be said of one model."""
        if place in self.diverged:
            return "diverged"
        marks = []
        if place == self.chosen:
            marks.append("knee" if len(self.front) > 1 else "best in both")
        elif self.front and place == self.front[0]:
            marks.append("best short")
        elif self.front and place == self.front[-1]:
            marks.append("best long")
        elif self.front and place not in self.front:
            marks.append("another is at least as good in both")
        return ", ".join(marks)

    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns; passkeys and benchmarks where they were measured."""
        return (
            "base weight",
            "short",
            "long",
            *(["passkey"] if any(model.scores.passkey is not None for model in self.models) else []),
            *(["benchmarks"] if any(model.benchmarks is not None for model in self.models) else []),
            "",
        )

    def cells(self) -> list[tuple[str, ...]]:
        """The table's rows; see `columns`."""

        def text(value: float | None, digits: int) -> str:
            return "-" if value is None else f"{value:.{digits}f}"

        names = self.columns()
        return [
            (
                f"{model.base_weight:g}",
                text(model.scores.short, 4),
                text(model.scores.long, 4),
                *([text(model.scores.passkey, 3)] if "passkey" in names else []),
                *([text(model.benchmarks, 3)] if "benchmarks" in names else []),
                self.mark(place),
            )
            for place, model in enumerate(self.models)
        ]

    def text_table(self) -> str:
        """For a terminal."""
        rows = [self.columns(), *self.cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
        return "\n".join(
            "  ".join([*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
            for row in rows
        )

    def write_table(self, path: Path) -> None:
        """Tab-separated, with each model's URI; scores with all their digits."""
        lines = ["base_weight\tshort\tlong\tpasskey\tbenchmarks\tmark\tmodel"]
        for place, model in enumerate(self.models):
            numbers = (model.base_weight, *dict(model.scores).values(), model.benchmarks)
            words = ["" if number is None else repr(float(number)) for number in numbers]
            lines.append("\t".join([*words, self.mark(place), model.uri]))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def swept_model(
    rows: Sequence[Row], name: str, window: int, base_weight: float, uri: str, asked: Collection[str] = ()
) -> SweptModel:
    """What an evaluation's rows say of model `name`; `asked` are the benchmarks that the recipe names.

    Raises:
        EvaluationError: The rows have no loss of it.
    """
    own = [row for row in rows if row["model"] == name and row["measure"] == "benchmark" and row["task"] in asked]
    return SweptModel(
        base_weight=base_weight, scores=scores(rows, name, window), benchmarks=_benchmark_mean(own), uri=uri
    )


def _benchmark_mean(rows: Sequence[Row]) -> float | None:
    """Over tasks and groups, each the mean of its metrics; a group's parts, which have rows too, are in its own."""
    tasks: dict[str, list[float]] = {}
    for row in rows:
        metric = str(row.get("metric") or "").partition(",")[0]  # behind the comma stands lm-eval's filter
        if not metric.endswith(LESS_IS_BETTER):
            tasks.setdefault(row["task"], []).append(row["value"])
    means = [sum(values) / len(values) for values in tasks.values()]
    return sum(means) / len(means) if means else None
