"""The reference implementation's position-index and right-point files as an index that the trainer reads.

Its preprocessing writes for document `i` a list of positions, one per trained token, and a right point `r`; training
then takes the document's first tokens at positions `0..r - 1` and, from there on, at those of the list.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.corpus import TokenShards
from longrecipe_core.errors import IndexingError
from longrecipe_core.positions.draws import as_runs
from longrecipe_core.positions.index_shards import index_writer
from longrecipe_core.positions.reference_pickle import Numbers, read_lists, read_numbers

LISTS_PER_LINE = 1000


def import_index(
    positions: Path,
    right_points: Path | None,
    tokens: TokenShards,
    output: Path,
    *,
    train_length: int,
    target_length: int,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write one sample per list: the first `train_length` tokens of document `i` at the positions of list `i`.

    Nothing tells whether the lists belong to these documents: their order must be the one that the lists were made in.
    An empty list is skipped and counted, as the reference does. `output` appears when all is written, or not at all.

    Args:
        positions: The pickle of position lists (`--fs_PI-path` there).
        right_points: The pickle of right points (`--right_points-path` there); positions stay as listed when not given.
        tokens: The train documents, row `i` for list `i`.
        output: The index's directory; not there yet, or empty.
        train_length: Positions in each list.
        target_length: Positions stay below it.
        progress: Takes lines.

    Returns:
        Counts: documents, documents skipped (empty list), samples, tokens, runs, mean run length.

    Raises:
        IndexingError: A file holds anything else, or list, right point and document don't fit; names file and row.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise IndexingError(f"{output}: is there already; an index is written into a new directory")
    points = None if right_points is None else read_numbers(right_points)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    rows = samples = runs = 0
    try:
        with index_writer(partial) as writer:
            for numbers in read_lists(positions):
                rows += 1
                _check_documents(rows, positions, tokens, exactly=False)
                if len(numbers):
                    drawn = _checked(
                        numbers, rows - 1, positions, int(tokens.lengths[rows - 1]), train_length, target_length
                    )
                    if points is not None:
                        prefix = _right_point(points, rows - 1, right_points, train_length)
                        drawn[:prefix] = np.arange(prefix)
                    row = as_runs(np.arange(train_length, dtype=np.int64), drawn)
                    writer.append((rows - 1, *row), 1)
                    samples, runs = samples + 1, runs + row[2].size
                if rows % LISTS_PER_LINE == 0:
                    progress(f"import-index: {rows} of {len(tokens)} lists")
        _check_documents(rows, positions, tokens, exactly=True)
        if points is not None and len(points) != rows:
            raise IndexingError(f"{right_points}: {len(points)} right points for the {rows} lists of {positions}")
        if samples == 0:
            raise IndexingError(f"{positions}: holds no positions in its {rows} lists")
        partial.chmod(0o755)  # of a temporary directory only the owner may read
        partial.replace(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return {
        "documents": rows,
        "documents_skipped_empty_list": rows - samples,
        "samples": samples,
        "tokens": samples * train_length,
        "runs": runs,
        "mean_run_length": samples * train_length / runs,
    }


def _check_documents(lists: int, positions: Path, tokens: TokenShards, exactly: bool) -> None:
    if lists > len(tokens) or (exactly and lists != len(tokens)):
        found = f"{lists} lists" if exactly else f"more than {len(tokens)} lists"
        raise IndexingError(
            f"{positions}: {found}, but {tokens.directory} has {len(tokens)} train documents; list i belongs to "
            f"document i, so none may be left out (corpus.validation_share 0, no filter)"
        )


def _checked(
    numbers: Numbers, row: int, positions: Path, document: int, train_length: int, target_length: int
) -> npt.NDArray[np.int64]:
    name = f"{positions}: list {row}"
    drawn = np.frombuffer(numbers, dtype=np.intc).astype(np.int64)
    if drawn.size != train_length:
        raise IndexingError(f"{name}: has {drawn.size} positions, not the train length {train_length}")
    if document < train_length:
        raise IndexingError(f"{name}: has {drawn.size} positions, its document only {document} tokens")
    falls = np.flatnonzero(np.diff(drawn) <= 0)
    if falls.size:
        place = int(falls[0])
        raise IndexingError(
            f"{name}: position {drawn[place + 1]} follows {drawn[place]} at {place + 1}; they must rise"
        )
    if drawn[-1] >= target_length:
        raise IndexingError(f"{name}: position {drawn[-1]} is not below the target length {target_length}")
    return drawn


def _right_point(points: Numbers, row: int, path: Path | None, train_length: int) -> int:
    if row >= len(points):
        raise IndexingError(f"{path}: {len(points)} right points, and none for list {row}")
    if points[row] > train_length:
        raise IndexingError(f"{path}: right point {points[row]} of list {row} is above the train length {train_length}")
    return points[row]
