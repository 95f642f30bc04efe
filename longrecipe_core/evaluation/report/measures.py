"""The evaluation's rows as sections: tables per measure, heat maps of needles, differences between models."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.report.parts import HeatMap, HeatMaps, Part, Section, Table, Text

Name = Callable[[Row], str]


def nll_parts(rows: Sequence[Row]) -> Iterator[Part]:
    """Loss by position and by context length, and perplexity."""
    yield from _table("Mean NLL at positions, nats per token", _of(rows, "nll"), _place, 3)
    yield from _table("Mean NLL with a context of so many tokens, nats per token", _of(rows, "context_nll"), _length, 3)
    yield from _table("Perplexity at length", _of(rows, "ppl"), _length, 3)
    for task, own in _by_task(_of(rows, "long_ppl")):
        yield from _table(f"LongPPL ({task}) at length", own, _length, 3)


def retrieval_parts(rows: Sequence[Row]) -> Iterator[Part]:
    """What the models find again in a long text."""
    yield from _table("Passkeys found, share, by distance", _of(rows, "passkey"), _place, 3)
    for task, own in _by_task(_of(rows, "copying")):
        title = f"Copying{f', {task}' if task else ''}: tokens of a copied span that are predicted, share"
        yield from _table(title, own, _column, 3)
    for task, own in _by_task([row for row in _of(rows, "needle") if row["depth"] is not None]):
        yield _heat_maps(f"Needles, {task}: score by depth (down) and length (across)", own)
    for task, own in _by_task([row for row in _of(rows, "needle") if row["depth"] is None]):
        yield from _table(f"Needles, {task}: score by length", own, _length, 1)


def ruler_parts(rows: Sequence[Row]) -> Iterator[Part]:
    """RULER: its summary first, then each task."""
    yield from _table("Effective length", _of(rows, "effective_length"), lambda row: "tokens", 0)
    yield from _table("Mean score by length", _of(rows, "ruler_mean"), _length, 1)
    for task, own in _by_task(_of(rows, "ruler")):
        yield from _table(f"{task}: score by length", own, _length, 1)


def benchmark_parts(rows: Sequence[Row]) -> Iterator[Part]:
    """Public benchmarks, a column per task and metric."""
    yield from _table("Scores", _of(rows, "benchmark"), _benchmark, 3)


def other_parts(rows: Sequence[Row]) -> Iterator[Part]:
    """Measures that none of the others shows, so that none gets lost."""
    shown = {
        *("nll", "context_nll", "ppl", "long_ppl", "passkey", "copying", "needle"),
        *("effective_length", "ruler_mean", "ruler", "benchmark"),
    }
    for measure in dict.fromkeys(row["measure"] for row in rows):
        if measure not in shown:
            for task, own in _by_task(_of(rows, measure)):
                yield from _table(f"{measure}{f', {task}' if task else ''}", own, _column, 3)


def difference_section(rows: Sequence[Row], reference: str) -> Section | None:
    """Differences of the same documents' losses from a reference model; None without any."""
    if not rows:
        return None
    text = (
        f"On the same {max(row['count'] for row in rows)} documents. The standard error is of the difference, over "
        f"documents: of few, one figure among many lies beyond twice its error by chance."
    )
    title = f"Mean NLL minus that of “{reference}”, nats per token: below 0 is better"
    return Section("Differences", (Text(text), *_table(title, rows, _place, 3, signed=True)))


def paired_rows(directory: Path, reference: str) -> list[Row]:
    """Rows of `paired.paired_differences`, [] where the artifact does not have what it takes."""
    from longrecipe_core.evaluation.paired import paired_differences

    return paired_differences(directory, reference)


def _of(rows: Sequence[Row], measure: str) -> list[Row]:
    return [row for row in rows if row["measure"] == measure]


def _by_task(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for task in dict.fromkeys(row.get("task") for row in rows):
        yield task or "", [row for row in rows if row.get("task") == task]


def _table(title: str, rows: Sequence[Row], column: Name, decimals: int, signed: bool = False) -> Iterator[Table]:
    """A line per model, a column per place; a figure with its standard error where it has one."""
    if not rows:
        return
    models = list(dict.fromkeys(row["model"] for row in rows))
    columns = list(dict.fromkeys(column(row) for row in rows))
    cells = {(row["model"], column(row)): _figure(row, decimals, signed) for row in rows}
    lines = tuple((model, *(cells.get((model, name), "") for name in columns)) for model in models)
    yield Table(("model", *columns), lines, title)


def _figure(row: Row, decimals: int, signed: bool) -> str:
    error = row.get("standard_error")
    text = f"{row['value']:{'+' if signed else ''},.{decimals}f}"
    return text if error is None or not math.isfinite(error) else f"{text} ± {error:.{decimals}f}"


def _heat_maps(title: str, rows: Sequence[Row]) -> HeatMaps:
    lengths, depths = (sorted({row[key] for row in rows}) for key in ("length", "depth"))
    maps = []
    for model in dict.fromkeys(row["model"] for row in rows):
        scores = {(row["depth"], row["length"]): row["value"] for row in rows if row["model"] == model}
        cells = tuple(tuple(scores.get((depth, length)) for length in lengths) for depth in depths)
        names = tuple(f"{length:,}" for length in lengths), tuple(f"{depth:.0%}" for depth in depths)
        maps.append(HeatMap(model, *names, cells))
    return HeatMaps(title, tuple(maps))


def _place(row: Row) -> str:
    return f"{row['end']:,}" if row["start"] == row["end"] else f"{row['start']:,}–{row['end']:,}"


def _length(row: Row) -> str:
    return f"{row['length']:,}"


def _benchmark(row: Row) -> str:
    return ", ".join(str(part) for part in (row.get("task"), row.get("metric")) if part)


def _column(row: Row) -> str:
    """Whatever tells a measurement's place."""
    parts = [_place(row)] if row.get("start") is not None else []
    parts += [f"{row['length']:,}"] if row.get("length") is not None else []
    parts += [f"at {row['depth']:.0%}"] if row.get("depth") is not None else []
    return ", ".join([*parts, *([str(row["metric"])] if row.get("metric") else [])]) or "value"
