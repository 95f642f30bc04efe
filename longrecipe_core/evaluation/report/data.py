"""What was trained on: token classes, what selection kept, which positions and distances the index covers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.errors import PositionError
from longrecipe_core.evaluation.report.parts import Bars, Part, Picture, Section, Table, Text, facts
from longrecipe_core.positions.coverage import measure_coverage
from longrecipe_core.positions.index_shards import IndexShards
from longrecipe_core.scoring.classes import PLOT_FILE, read_classes

COVERAGE_SAMPLES = 200
"""Of an index, evenly spread; more cost seconds and change little."""

# What stage `index` counts, how a person reads it.
SELECTION = {
    "tokens_read": ("tokens read", "{:,}"),
    "tokens_kept": ("tokens kept", "{:,}"),
    "share_kept": ("of those read", "{:.1%}"),
    "sentences_kept": ("sentences kept", "{:,}"),
    "sentences_read": ("sentences read", "{:,}"),
    "sentences_with_anchor": ("of these with an anchor", "{:,}"),
    "anchor_share": ("tokens kept that stand in anchor sentences", "{:.1%}"),
    "topped_up": ("samples whose anchor sentences did not fill the budget", "{:,}"),
    "documents_skipped_too_short": ("documents skipped as too short", "{:,}"),
}


def impact_section(impact: Path) -> Section:
    """The table and the plot of token classes beside the paper's figure (section 4.1)."""
    head = ("class", "types", "occurrences", "mean score", "of the top", "of all", "paper, of the top")
    rows = tuple(
        (
            str(row["token_class"]),
            f"{row['types']:,}",
            f"{row['occurrences']:,}",
            f"{row['mean_score']:+.3f}",
            f"{row['share_of_top']:.3f}",
            f"{row['share_of_all']:.3f}",
            "" if row["paper"] is None else f"≈ {row['paper']:.2f}",
        )
        for row in read_classes(impact)
    )
    text = (
        "Whose logits a longer context raises (Eq. 3 of the paper). A token is in the top where its own difference "
        "is among the greatest of the whole vocabulary's."
    )
    picture = Picture((impact / PLOT_FILE).read_bytes(), "token classes")
    return Section("Impactful tokens", (Text(text), Table(head, rows), picture))


def selection_section(selection: Mapping[str, Any]) -> Section | None:
    """What was kept of the documents, and from where in them; None where nothing is told."""
    rows = [(label, form.format(selection[key])) for key, (label, form) in SELECTION.items() if key in selection]
    kept, read = selection.get("histogram"), selection.get("histogram_available")
    parts: list[Part] = [facts(rows)] if rows else []
    if kept:
        what = "Tokens kept (dark) and read (light), by place in the document, from its start to its end"
        parts.append(Bars(what, tuple(kept), tuple(read or [0.0] * len(kept))))
    return Section("Selection", tuple(parts)) if parts else None


def coverage_section(index: Path, strategy: str, target_length: int) -> Section:
    """Which positions and distances the samples of an `index` artifact train, beside full-length samples."""
    shards = IndexShards(index)
    chosen = np.unique(np.linspace(0, len(shards) - 1, min(len(shards), COVERAGE_SAMPLES)).astype(int))
    try:
        own = measure_coverage(f"this run: {strategy}", _positions(shards, chosen), target_length)
    except PositionError as error:
        return Section("Position coverage", (Text(f"Not told: {error}."),))
    full = measure_coverage("full length", [np.arange(target_length)], target_length)
    from longrecipe_core.positions.coverage_plot import coverage_png

    head = ("", "tokens a sample", "mean distance", "mean run", "positions seen", "distances seen")
    rows = tuple(
        (
            each.strategy,
            f"{each.tokens:,}",
            f"{each.mean_distance:,.1f}",
            f"{each.mean_run:,.1f}",
            f"{each.seen:.2%}",
            f"{each.distances_seen:.2%}",
        )
        for each in (own, full)
    )
    text = (
        f"Of {own.samples:,} of the index's {len(shards):,} samples: how often two tokens stand at each distance. "
        f"What no pair is apart, the model is not trained on."
    )
    picture = Picture(coverage_png([own, full]), "trained pairs of tokens by their distance")
    return Section("Position coverage", (Text(text), Table(head, rows), picture))


def _positions(shards: IndexShards, chosen: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Position ids of samples, int64 `[tokens]` each."""
    for sample in chosen:
        _, _, starts, lengths = shards.runs(int(sample))
        yield np.concatenate([np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)])
