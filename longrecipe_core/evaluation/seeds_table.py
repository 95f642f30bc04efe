"""The tables of a comparison, from its rows: for a page in Markdown, and for a terminal."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.over_seeds import Mean, over_seeds, paired
from longrecipe_core.evaluation.seeds_rows import PerSeed, names, part, places, short_loss, values, window_of

INSIDE, BEYOND = "inside the old window", "beyond it"


@dataclass(frozen=True)
class Table:
    """A title, a head, and rows of as many cells."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As Markdown has it; the first column is text."""
        ruler = ("---", *("---:" for _ in self.head[1:]))
        lines = [f"| {' | '.join(cells)} |" for cells in (self.head, ruler, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines])

    def text(self) -> str:
        """In columns of equal width."""
        grid = (self.head, *self.rows)
        widths = [max(len(row[at]) for row in grid) for at in range(len(self.head))]
        lines = [
            "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(cells)).rstrip()
            for cells in (tuple(zip(row, widths, strict=True)) for row in grid)
        ]
        return "\n".join([self.title, *lines])


def tables(rows: Sequence[Row], base: str, reference: str | None) -> list[Table]:
    """All tables of a comparison; `base` is the untrained model's name, `reference` the variant that others are held
    against. A measure that was not taken has no table.

    Raises:
        EvaluationError: Variant and reference have different seeds.
    """
    models = names(rows, "references", "variants")
    found = [_summary("Per variant, mean ± standard error over seeds", rows, models, base)]
    found += _by_place(rows, models)
    if reference is not None:
        found += _differences(rows, reference)
    if names(rows, "ablation"):
        title = "Ablation: tokens per training sequence, one seed, the same number of steps"
        found.append(_summary(title, rows, names(rows, "ablation"), base))
    return found


def _columns(rows: Sequence[Row]) -> list[tuple[str, Callable[[str], PerSeed], int]]:
    """Name, figure by variant and decimals of the columns that mean the same for variants and differences."""
    columns: list[tuple[str, Callable[[str], PerSeed], int]] = []
    for measure, title, decimals in (("nll", "NLL", 4), ("copying", "copying", 3), ("passkey", "passkey", 3)):
        for beyond, where in ((False, INSIDE), (True, BEYOND)):
            if any(part(rows, name, measure, beyond=beyond) for name in names(rows, "references", "variants")):
                columns.append((f"{title} {where}", _part(rows, measure, beyond), decimals))
    return columns


def _part(rows: Sequence[Row], measure: str, beyond: bool) -> Callable[[str], PerSeed]:
    return lambda name: part(rows, name, measure, beyond=beyond)


def _summary(title: str, rows: Sequence[Row], models: Sequence[str], base: str) -> Table:
    lengths = {row["variant"]: row["train_length"] for row in rows}
    columns = _columns(rows)
    head = ("variant", "seeds", "sequence", "tokens trained", "seconds", *(name for name, _, _ in columns))
    lines = []
    for name in models:
        tokens, seconds = (values(rows, name, measure, (None, None)) for measure in ("tokens", "seconds"))
        lines.append(
            (
                name,
                str(len(tokens)) if tokens else "",
                f"{lengths[name]:,}" if lengths[name] else "",
                _cell(tokens, 0),
                _cell(seconds, 1),
                *(_cell(figure(name), decimals) for _, figure, decimals in columns),
                "" if name == base else _cell(short_loss(rows, name, base), 4, sign=True),
            )
        )
    return Table(title, (*head, "short-context loss"), tuple(lines))


def _by_place(rows: Sequence[Row], models: Sequence[str]) -> list[Table]:
    window = window_of(rows)
    titles = {
        "nll": f"NLL, nats per token, at positions; the old window ends at {window}",
        "copying": f"Copying: share of the copied tokens that are foretold, by distance; the old window is {window}",
        "passkey": f"Passkey: share of keys found, by distance; the old window is {window}",
    }
    found = []
    for measure, title in titles.items():
        columns = places(rows, measure)
        if columns:
            head = ("variant", *(str(end) if start == end else f"{start}–{end - 1}" for start, end in columns))
            decimals = 4 if measure == "nll" else 3
            lines = [
                (name, *(_cell(values(rows, name, measure, place), decimals) for place in columns)) for name in models
            ]
            found.append(Table(title, head, tuple(lines)))
    return found


def _differences(rows: Sequence[Row], reference: str) -> list[Table]:
    columns = _columns(rows)
    lines = []
    for name in names(rows, "variants"):
        if name == reference:
            continue
        cells = []
        for _, figure, decimals in columns:
            difference = paired(_seeded(figure(name)), _seeded(figure(reference)))
            cells.append(f"{shown(difference, decimals, sign=True)}, {difference.direction()}")
        lines.append((name, *cells))
    title = (
        f"Minus {reference}, seed by seed, ± standard error; higher or lower where zero is outside the 95 % interval "
        f"(Student's t)"
    )
    return [Table(title, ("variant", *(name for name, _, _ in columns)), tuple(lines))]


def _seeded(figure: PerSeed) -> dict[int, float]:
    return {seed: value for seed, value in figure.items() if seed is not None}


def _cell(figure: PerSeed, decimals: int, *, sign: bool = False) -> str:
    return shown(over_seeds(list(figure.values())), decimals, sign=sign) if figure else ""


def shown(mean: Mean, decimals: int, *, sign: bool = False) -> str:
    """`1.234 ± 0.005`; without an error where there is one seed, or where the figure is the same for all."""
    text = f"{mean.value:{'+' if sign else ''},.{decimals}f}"
    if math.isnan(mean.standard_error) or (decimals == 0 and mean.standard_error == 0):
        return text
    return f"{text} ± {mean.standard_error:.{decimals}f}"
