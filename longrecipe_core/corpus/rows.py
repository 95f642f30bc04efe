"""Rows of each format, one at a time, each with the place that messages name it by.

Parquet, Arrow, hub and disk are read by `datasets`. JSON lines are read here: `datasets` parses them in
blocks of 10 MB, can't tell the line that is bad, takes columns of dates for timestamps, and after a failed
block reads the whole file once more through pandas.
"""

import glob
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa

from longrecipe_core.corpus.files import SourceFile, list_files, one_line
from longrecipe_core.corpus.hub import HUB_ERRORS, hub_token
from longrecipe_core.errors import CorpusError
from longrecipe_core.recipe.sections import SourceSection

Row = dict[str, Any]
# What damaged files raise on the way through fsspec, a decompressor, pyarrow and datasets.
# UnicodeDecodeError, JSONDecodeError and pyarrow's ArrowInvalid are ValueErrors, damaged gzip and missing
# files OSErrors.
READ_ERRORS = (*HUB_ERRORS, EOFError, ValueError, pa.ArrowException, zlib.error, lzma.LZMAError, ImportError)


def iterate_rows(source: SourceSection, columns: list[str]) -> Iterator[tuple[str, Row]]:
    """(place, row with at least these columns) of a `jsonl`, `parquet`, `arrow`, `hub` or `disk` source.

    Raises:
        CorpusError: naming file and row, see `sources.iterate_documents`.
    """
    if source.format == "hub":
        name = f"hub dataset {source.path}" + (f" ({source.subset})" if source.subset else "")
        yield from _dataset_rows(name, _open_hub, source, columns)
    elif source.format == "disk":
        yield from _dataset_rows(source.path, _open_disk, source, columns)
    else:
        for file in list_files(source.path, source.format):
            if source.format == "jsonl":
                yield from _json_rows(file, columns)
            else:
                yield from _dataset_rows(
                    file.name, lambda _, file=file: _open_file(file, source.format), source, columns
                )


def read_bytes(file: SourceFile) -> bytes:
    """A whole file, decompressed as its name says. Raises CorpusError naming the file."""
    try:
        with file.fs.open(file.path, "rb", compression="infer") as stream:
            content: bytes = stream.read()
    except READ_ERRORS as error:
        raise CorpusError(f"{file.name}: can't be read: {one_line(error)}") from error
    return content


def _json_rows(file: SourceFile, columns: list[str]) -> Iterator[tuple[str, Row]]:
    number = 0
    try:
        with closing(file.fs.open(file.path, "rb", compression="infer")) as stream:
            for number, line in enumerate(stream, start=1):
                if line.isspace():
                    continue
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                if not isinstance(row, dict):
                    raise CorpusError(f"{file.name}, line {number}: a JSON object expected, not {type(row).__name__}")
                place = f"{file.name}, line {number}"
                _require(columns, row, place)
                yield place, row
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file.name}, line {number}: not UTF-8: {one_line(error)}") from error
    except json.JSONDecodeError as error:
        raise CorpusError(f"{file.name}, line {number}: not JSON (cut short?): {one_line(error)}") from error
    except (*READ_ERRORS, RecursionError) as error:
        raise CorpusError(f"{file.name}, after line {number}: can't be read: {one_line(error)}") from error


def _dataset_rows(name: str, opener: Any, source: SourceSection, columns: list[str]) -> Iterator[tuple[str, Row]]:
    number = 0
    try:
        dataset = opener(source)
        if dataset.column_names is not None:
            _require(columns, dataset.column_names, name)
            dataset = dataset.select_columns(columns)
        for number, row in enumerate(dataset, start=1):
            place = f"{name}, row {number}"
            _require(columns, row, place)
            yield place, row
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name}, row {number + 1}: not UTF-8: {one_line(error)}") from error
    except READ_ERRORS as error:
        where = f"{name}, after row {number}" if number else name
        raise CorpusError(f"{where}: can't be read (cut short?): {one_line(error)}") from error


def _require(columns: list[str], present: Iterable[str], place: str) -> None:
    for column in columns:
        if column not in present:
            raise CorpusError(f"{place}: no column {column!r}; it has {', '.join(sorted(map(str, present))) or 'none'}")


def _open_file(file: SourceFile, format: str) -> Any:
    import datasets

    # Small batches, since a row may be a book; a name is not a pattern here.
    options: dict[str, Any] = {"batch_size": 16} if format == "parquet" else {}
    return datasets.load_dataset(format, data_files=[glob.escape(file.uri)], split="train", streaming=True, **options)


def _open_hub(source: SourceSection) -> Any:
    import datasets

    return datasets.load_dataset(
        source.path,
        name=source.subset,
        split=source.split,
        revision=source.revision,
        streaming=True,
        token=hub_token() or False,
    )


def _open_disk(source: SourceSection) -> Any:
    import datasets

    loaded = datasets.load_from_disk(source.path)
    if isinstance(loaded, datasets.DatasetDict):
        if source.split not in loaded:
            raise CorpusError(f"{source.path}: no split {source.split!r}; it has {', '.join(sorted(loaded))}")
        return loaded[source.split]
    return loaded
