"""What a comparison's models come to: rows from their artifacts."""

from pathlib import Path

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore
from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.seeds_rows import MEASURES, full_row
from longrecipe_core.evaluation.table import read_rows
from longrecipe_core.recipe.comparison import Training
from longrecipe_core.training.metrics_file import read_metrics


def reference_rows(store: ArtifactStore, name: str, measured: ArtifactRef) -> list[Row]:
    """Of a model that the comparison did not train."""
    return _measured(store, {"group": "references", "variant": name}, measured)


def training_rows(store: ArtifactStore, training: Training, extended: ArtifactRef, measured: ArtifactRef) -> list[Row]:
    """Of one training: its steps, tokens and seconds, and what was measured of the model.

    `seconds` is the sum of its steps' own, without starting the process, on whatever machine and beside whatever else
    it ran.
    """
    steps = read_metrics(Path(store.fetch(extended)) / "about" / "metrics.jsonl")
    names = {
        "group": training.group,
        "variant": training.variant,
        "seed": training.seed,
        "train_length": training.recipe.context.train_length,
    }
    spent = {
        "steps": float(steps[-1]["step"]),
        "tokens": float(sum(row["tokens"] for row in steps)),
        "seconds": float(sum(row["seconds"] for row in steps)),
    }
    rows = [full_row(names | {"measure": measure, "value": value}) for measure, value in spent.items()]
    return rows + _measured(store, names, measured)


def window_row(name: str, window: int) -> Row:
    """Which part of the target length the base model had."""
    return full_row({"group": "references", "variant": name, "measure": "window", "value": float(window)})


def _measured(store: ArtifactStore, names: Row, measured: ArtifactRef) -> list[Row]:
    kept = ("measure", "start", "end", "value", "standard_error", "count")
    rows = read_rows(store.fetch(measured))
    found = [full_row(names | {key: row[key] for key in kept}) for row in rows if row["measure"] in MEASURES]
    # Of one document or sample there is no error.
    return [row | {"standard_error": _number(row["standard_error"])} for row in found]


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else value
