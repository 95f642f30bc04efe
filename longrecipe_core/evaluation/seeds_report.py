"""A comparison's directory: the rows, the tables and the picture."""

from collections.abc import Sequence
from pathlib import Path

from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.seeds_plot import plot_comparison
from longrecipe_core.evaluation.seeds_rows import names, values, window_of, write_tsv
from longrecipe_core.evaluation.seeds_table import Table, tables
from longrecipe_core.recipe.comparison import BASE

ROWS, PAGE, PICTURE = "rows.tsv", "comparison.md", "comparison.png"


def write_comparison(rows: Sequence[Row], directory: Path, name: str, reference: str | None) -> list[Table]:
    """Write `rows.tsv`, `comparison.md` and `comparison.png`; returns the tables.

    Args:
        rows: As `seeds_rows.COLUMNS` has them.
        directory: Made where it is missing; files of these names in it are replaced.
        name: The comparison's.
        reference: The variant that the others are held against, if any.

    Raises:
        EvaluationError: Variants have different seeds.
    """
    found = tables(rows, BASE, reference)
    directory.mkdir(parents=True, exist_ok=True)
    write_tsv(rows, directory / ROWS)
    plot_comparison(rows, directory / PICTURE)
    (directory / PAGE).write_text(_page(rows, found, name), encoding="utf-8")
    return found


def _page(rows: Sequence[Row], found: Sequence[Table], name: str) -> str:
    seeds = sorted({row["seed"] for row in rows if row["group"] == "variants"})
    steps = sorted({value for one in names(rows, "variants") for value in _steps(rows, one)})
    head = (
        f"# {name}\n\n"
        f"Old window {window_of(rows):,} tokens; {', '.join(f'{step:,.0f}' for step in steps)} optimizer steps each; "
        f"training seeds {', '.join(map(str, seeds))}. Errors are standard errors over these seeds: they say how far "
        f"another draw of samples and order moves a figure, and nothing of another base model or other documents. "
        f"Seconds are of the steps alone.\n\n![loss by position and copying by distance]({PICTURE})\n\n"
    )
    return head + "\n\n".join(table.markdown() for table in found) + "\n"


def _steps(rows: Sequence[Row], variant: str) -> list[float]:
    return list(values(rows, variant, "steps", (None, None)).values())
