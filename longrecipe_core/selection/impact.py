"""The `impact` artifact: one row per vocabulary entry, and the entries that make a sentence worth training on."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longrecipe_core.errors import ArtifactDamagedError, IndexingError
from longrecipe_core.recipe import SelectionSection

FILE = "impact.arrow"
NO_ANCHORS = ["punctuation", "white space", "special"]
SCHEMA = pa.schema(
    [
        pa.field("token_id", pa.int32(), nullable=False),
        pa.field("token", pa.string(), nullable=False),  # the entry's text, decoded by itself
        pa.field("token_class", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # Eq. 3: the sum of logit differences
        pa.field("count", pa.int64(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),  # of its occurrences, those in the top; 0 where count is 0
    ]
)


def write_impact(directory: Path, table: pa.Table) -> None:
    """Write the rows, in the order of token ids, as one Arrow IPC file."""
    with pa.OSFile(str(directory / FILE), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(table.cast(SCHEMA))


def read_impact(directory: Path) -> pa.Table:
    """The rows of an `impact` artifact. Raises ArtifactDamagedError where there are none."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(directory / FILE))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise ArtifactDamagedError(f"{directory / FILE}: not a whole Arrow file: {error}") from error
    if not table.schema.equals(SCHEMA):
        raise ArtifactDamagedError(f"{directory / FILE}: columns {table.schema.names}, not {SCHEMA.names}")
    return table


def anchor_tokens(table: pa.Table, selection: SelectionSection) -> npt.NDArray[np.bool_]:
    """Which vocabulary entries are anchors: the top share of the types that were seen (paper, section 4.1).

    Types seen `minimum_count` times or more are ranked by `rank_by`, the lower token id first among equals, and the
    first `top_share` of them, rounded up, are anchors. Classes in `NO_ANCHORS` take no part: punctuation ends nearly
    every sentence, so that one such anchor would select them all.

    Returns:
        bool `[vocabulary]`.

    Raises:
        IndexingError: No type was seen often enough.
    """
    counts: npt.NDArray[Any] = table.column("count").to_numpy()
    values: npt.NDArray[Any] = table.column(selection.rank_by).to_numpy()
    classes: npt.NDArray[Any] = table.column("token_class").to_numpy()
    often = counts >= selection.minimum_count
    seen = np.flatnonzero(often & ~np.isin(classes, NO_ANCHORS))
    if seen.size == 0:
        raise IndexingError(
            f"selection.minimum_count {selection.minimum_count}: no word, number or piece of code was scored so "
            f"often (the most frequent token {int(counts.max(initial=0))} times); lower it or raise score.documents"
        )
    ranked = seen[np.argsort(-values[seen], kind="stable")]
    anchors = np.zeros(counts.size, dtype=bool)
    anchors[ranked[: share_of(selection.top_share, seen.size)]] = True
    return anchors


def share_of(share: float, count: int) -> int:
    """`share * count`, rounded up, of the decimal number as a recipe has it: in binary, 0.07 * 100 is above 7."""
    return math.ceil(Fraction(str(share)) * count)
