"""Differences between two models on the same documents: paired, so that what makes documents hard cancels out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longrecipe_core.evaluation.measurements import Row

DOCUMENTS_FILE = "documents.parquet"
"""Beside `evaluation.parquet`; artifacts from before there was it have none."""

DOCUMENT_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("document", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("sum", pa.float64()),
        ("count", pa.int64()),
    ]
)
"""Nats of one document's tokens at positions `start..end - 1`, and how many tokens these are. `document` counts the
documents of this evaluation, the same for all models."""


def by_document(nll: npt.NDArray[np.float64], start: int, end: int) -> list[tuple[int, float, int]]:
    """Per document that has tokens at positions `start..end - 1`: its number, their nats, how many they are.

    `nll` is `[documents, target_length - 1]`, NaN where a document has ended; column i is position i + 1.
    """
    part = nll[:, max(start, 1) - 1 : end - 1]
    counts, sums = np.isfinite(part).sum(axis=1), np.nansum(part, axis=1)
    return [(int(at), float(sums[at]), int(counts[at])) for at in np.flatnonzero(counts)]


def write_documents(rows: Sequence[Row], directory: Path) -> None:
    """Write what the rows of an evaluation tell `by_document` into its output."""
    found = [
        {"model": row["model"], "document": document, "start": row["start"], "end": row["end"]}
        | {"sum": value, "count": count}
        for row in rows
        for document, value, count in row.get("documents", ())
    ]
    pq.write_table(pa.Table.from_pylist(found, schema=DOCUMENT_SCHEMA), directory / DOCUMENTS_FILE)


def paired_differences(directory: Path, reference: str) -> list[Row]:
    """Mean NLL of every other model minus that of `reference`, per bucket, from an `evaluation` artifact's directory.

    Rows have `model`, `start`, `end`, `value` (nats per token, model minus reference: below 0 is better than the
    reference), `standard_error` and `count` (documents), in the order of the evaluation's models and buckets. `value`
    is the difference of the table's means, over tokens. Its standard error is over documents: that of a ratio
    estimator, since documents may have different numbers of tokens (Cochran 1977, Sampling Techniques, eq. 6.13,
    without the finite population); NaN for a single document.

    Returns:
        [] where the artifact has no losses by document, since it is an old one, or has no model `reference`.
    """
    path = directory / DOCUMENTS_FILE
    if not path.is_file():
        return []
    sums: dict[tuple[str, int, int], dict[int, tuple[float, int]]] = {}
    for row in pq.read_table(path).to_pylist():
        cell = sums.setdefault((row["model"], row["start"], row["end"]), {})
        cell[row["document"]] = row["sum"], row["count"]
    rows: list[Row] = []
    for (model, start, end), own in sums.items():
        other = sums.get((reference, start, end))
        if model == reference or other is None:
            continue
        counts = np.array([count for _, count in own.values()])
        differences = np.array([value - other[document][0] for document, (value, _) in own.items()])
        mean, documents = differences.sum() / counts.sum(), len(counts)
        spread = ((differences - mean * counts) ** 2).sum() * documents / max(documents - 1, 1)
        rows.append(
            {
                "model": model,
                "start": start,
                "end": end,
                "value": float(mean),
                "standard_error": float(spread**0.5 / counts.sum()) if documents > 1 else float("nan"),
                "count": documents,
            }
        )
    return rows
