"""The scores by class of token, as in the paper's figure (section 4.1): a table and a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longrecipe_core.scoring.vocabulary import CLASSES

TABLE_FILE, PLOT_FILE = "classes.parquet", "classes.png"
SCHEMA = pa.schema(
    [
        pa.field("token_class", pa.string(), nullable=False),
        pa.field("types", pa.int64(), nullable=False),  # vocabulary entries of the class that were seen
        pa.field("occurrences", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # sum over occurrences
        pa.field("mean_score", pa.float64(), nullable=False),  # per occurrence
        pa.field("top_occurrences", pa.int64(), nullable=False),
        pa.field("share_of_top", pa.float64(), nullable=False),  # of all top occurrences: the paper's mass
        pa.field("share_of_all", pa.float64(), nullable=False),  # of all occurrences, to compare with
        pa.field("paper", pa.float64()),  # read from the paper's figure, where it shows the class
    ]
)
# About, as read from the figure: NUM, PRON, AUX, CCONJ, ADP.
PAPER = {"numbers": 0.40, "pronouns": 0.15, "auxiliaries": 0.15, "conjunctions": 0.10, "adpositions": 0.10}


def class_table(
    classes: Sequence[str],
    count: npt.NDArray[np.int64],
    score: npt.NDArray[np.float64],
    top: npt.NDArray[np.int64],
) -> pa.Table:
    """One row per class of which a token was seen, in the order of `CLASSES`; all arguments `[vocabulary]`."""
    number = np.array([CLASSES.index(name) for name in classes], dtype=np.int64)
    rows = []
    for place, name in enumerate(CLASSES):
        members = (number == place) & (count > 0)
        occurrences, top_occurrences = int(count[members].sum()), int(top[members].sum())
        if occurrences == 0:
            continue
        rows.append(
            {
                "token_class": name,
                "types": int(members.sum()),
                "occurrences": occurrences,
                "score": float(score[members].sum()),
                "mean_score": float(score[members].sum() / occurrences),
                "top_occurrences": top_occurrences,
                "share_of_top": top_occurrences / max(int(top.sum()), 1),
                "share_of_all": occurrences / int(count.sum()),
                "paper": PAPER.get(name),
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def class_masses(table: pa.Table) -> dict[str, float]:
    """Each class's share of the top occurrences."""
    return {row["token_class"]: row["share_of_top"] for row in table.to_pylist()}


def write_classes(directory: Path, table: pa.Table) -> None:
    """Write the table as Parquet."""
    pq.write_table(table, directory / TABLE_FILE)


def read_classes(directory: Path) -> list[dict[str, Any]]:
    """The rows of an `impact` artifact's class table; columns as in `SCHEMA`."""
    rows: list[dict[str, Any]] = pq.read_table(directory / TABLE_FILE).to_pylist()
    return rows


def plot_classes(table: pa.Table, directory: Path) -> None:
    """Shares of the top and of all occurrences side by side, with the paper's beside them."""
    rows = table.to_pylist()
    figure = matplotlib.figure.Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.bar(places - 0.2, [row["share_of_top"] for row in rows], 0.4, label="of the top occurrences")
    axes.bar(places + 0.2, [row["share_of_all"] for row in rows], 0.4, label="of all occurrences", color="silver")
    shown = [(place, row["paper"]) for place, row in zip(places - 0.2, rows, strict=True) if row["paper"] is not None]
    if shown:
        marks, heights = zip(*shown, strict=True)
        axes.scatter(marks, heights, marker="_", s=300, color="black", label="of the top in the paper's figure, about")
    axes.set_xticks(places, [row["token_class"] for row in rows], rotation=30, ha="right")
    axes.set_ylabel("share")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    # No software version in the file: the same numbers give the same bytes.
    figure.savefig(directory / PLOT_FILE, dpi=120, metadata={"Software": None})
