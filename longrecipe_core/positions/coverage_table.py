"""Coverage as tables: one that a person reads in a terminal, and two files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from longrecipe_core.positions.coverage import Coverage

COLUMNS = ("strategy", "tokens", "samples", "mean_distance", "mean_run", "seen_per_sample", "seen", "distances_seen")
"""Of `positions.tsv`, named after what `Coverage` calls them."""


def text_table(coverages: Sequence[Coverage]) -> str:
    """One line per strategy; shares in percent of `0..T - 1`, of the distances in percent of `1..T - 1`."""
    head = ["strategy", "tokens", "samples", "mean distance", "mean run", "seen/sample", "seen", "distances seen"]
    rows = [
        [
            coverage.strategy,
            str(coverage.tokens),
            str(coverage.samples),
            f"{coverage.mean_distance:.1f}",
            f"{coverage.mean_run:.1f}",
            *(f"{100 * share:.2f} %" for share in (coverage.seen_per_sample, coverage.seen, coverage.distances_seen)),
        ]
        for coverage in coverages
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in [head, *rows]
    )


def write_tables(coverages: Sequence[Coverage], directory: Path) -> None:
    """Write `positions.tsv`, a row per strategy, and `distances.tsv`, a row per distance `0..T - 1`.

    The latter holds the exact number of pairs at that distance in all samples together, a column per strategy; divide
    by its `samples` to compare them. Distance 0 is every token with itself.
    """
    rows = ([str(getattr(coverage, column)) for column in COLUMNS] for coverage in coverages)
    _write(directory / "positions.tsv", COLUMNS, rows)
    counts = (coverage.distance_counts.tolist() for coverage in coverages)
    _write(
        directory / "distances.tsv",
        ["distance", *(coverage.strategy for coverage in coverages)],
        ([str(number), *map(str, row)] for number, row in enumerate(zip(*counts, strict=True))),
    )


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for row in (head, *rows):
            file.write("\t".join(row) + "\n")
