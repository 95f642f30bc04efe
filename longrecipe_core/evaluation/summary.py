"""RULER in a line: mean score by length, and the effective length."""

from collections.abc import Sequence

from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.ruler import effective_length


def ruler_summary(rows: Sequence[Row], threshold: float) -> list[Row]:
    """Of one model's rows: per length the mean over tasks, of measure `ruler_mean`, and one of `effective_length`."""
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        if row["measure"] == "ruler":
            by_length.setdefault(row["length"], []).append(row)
    means = {length: sum(row["value"] for row in part) / len(part) for length, part in by_length.items()}
    return [
        *(
            {
                "measure": "ruler_mean",
                "length": length,
                "value": means[length],
                # Of a mean of independent means.
                "standard_error": sum(row["standard_error"] ** 2 for row in part) ** 0.5 / len(part),
                "count": sum(row["count"] for row in part),
            }
            for length, part in by_length.items()
        ),
        {
            "measure": "effective_length",
            "value": float(effective_length(means, threshold)),
            "count": sum(row["count"] for part in by_length.values() for row in part),
        },
    ]
