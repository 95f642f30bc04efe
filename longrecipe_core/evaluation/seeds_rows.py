"""The rows of a comparison: one per training and measurement, and what is made of them before seeds are averaged."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.table import weighted_mean

TEXTS, WHOLE, FRACTIONS = ("group", "variant", "measure"), ("start", "end", "count"), ("value", "standard_error")
COLUMNS = ("group", "variant", "seed", "train_length", "measure", "start", "end", "value", "standard_error", "count")
"""`group` is `references`, `variants` or `ablation`; of a reference, seed and train length are empty. Measures `nll`,
`copying` and `passkey` are those of the `evaluation` artifact, with its standard errors, which are over documents or
samples; `tokens` and `seconds` are of the training, `steps` too; `window` is the base model's."""
MEASURES = ("nll", "copying", "passkey")

PerSeed = dict[int | None, float]
"""A figure by training seed; references have none."""


def full_row(given: Row) -> Row:
    """With all of `COLUMNS`, in order; None where nothing is given."""
    return dict.fromkeys(COLUMNS) | given


def write_tsv(rows: Iterable[Row], path: Path) -> None:
    """With every digit; what a row has not is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow("" if row.get(key) is None else row[key] for key in COLUMNS)


def read_tsv(path: Path) -> list[Row]:
    """The rows that `write_tsv` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: _read(key, cell) for key, cell in row.items()} for row in csv.DictReader(file, delimiter="\t")]


def _read(key: str, cell: str) -> str | int | float | None:
    if not cell:
        return None
    return cell if key in TEXTS else float(cell) if key in FRACTIONS else int(cell)


def names(rows: Sequence[Row], *groups: str) -> list[str]:
    """Variants of these groups, in order."""
    return list(dict.fromkeys(row["variant"] for row in rows if row["group"] in groups))


def places(rows: Sequence[Row], measure: str) -> list[tuple[int, int]]:
    """Start and end of each bucket or distance that was measured, in order."""
    found = {(row["start"], row["end"]) for row in rows if row["measure"] == measure}
    return sorted(found)


def window_of(rows: Sequence[Row]) -> int:
    """The base model's."""
    return next(int(row["value"]) for row in rows if row["measure"] == "window")


def values(rows: Sequence[Row], variant: str, measure: str, place: tuple[int | None, int | None]) -> PerSeed:
    """One measurement of a variant."""
    return {
        row["seed"]: row["value"]
        for row in rows
        if (row["variant"], row["measure"], (row["start"], row["end"])) == (variant, measure, place)
    }


def part(rows: Sequence[Row], variant: str, measure: str, *, beyond: bool) -> PerSeed:
    """The mean over what lies inside the base model's window, or beyond it; by tokens or samples.

    A bucket is inside when it ends there, and a distance when it is shorter than the window (the whole prompt is
    longer: distances next to the window ask for a little more than it has).
    """
    window = window_of(rows)
    own: dict[int | None, list[Row]] = {}
    for row in rows:
        if (row["variant"], row["measure"]) == (variant, measure):
            inside = row["start"] < window if row["start"] == row["end"] else row["end"] <= window
            if inside != beyond:
                own.setdefault(row["seed"], []).append(row)
    return {seed: weighted_mean(found) for seed, found in own.items()}


def short_loss(rows: Sequence[Row], variant: str, base: str) -> PerSeed:
    """NLL inside the base model's window minus that of the base, nats per token: above 0 the variant is worse there.

    Empty where buckets are wider than the window, so that none lies inside.
    """
    (before,) = part(rows, base, "nll", beyond=False).values() or (0.0,)
    return {seed: value - before for seed, value in part(rows, variant, "nll", beyond=False).items()}
