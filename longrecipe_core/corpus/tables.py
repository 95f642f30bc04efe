"""Rows of Parquet and Arrow files, of hub datasets and of `save_to_disk` directories.

Tables are taken apart in Arrow's own memory, a few rows at a time where they have to be decoded, and a value
becomes a Python object only after its size and its type are known.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longrecipe_core.artifacts.location import is_local
from longrecipe_core.corpus.bad_data import BadFileError, BadRowError
from longrecipe_core.corpus.files import SourceFile, expand_home, one_line
from longrecipe_core.corpus.hub import HUB_ERRORS, hub_token
from longrecipe_core.corpus.reading import DAMAGE_ERRORS, open_raw, oversized
from longrecipe_core.corpus.rows import Row, Rows, missing_column
from longrecipe_core.errors import CorpusError
from longrecipe_core.recipe.sections import SourceSection

_BYTES_AT_A_TIME = 8 << 20
_ROWS_AT_A_TIME = 1 << 12
# Where rows are decoded or fetched. Sizes are not known beforehand, and a row may be a book: a row group's size
# tells only the mean, and not even that where texts repeat, since the file then holds each of them once.
_ROWS_PER_BATCH = 16
_FILE_FORM = b"ARROW1\0\0"  # in front of Arrow's file form; what follows reads like its stream form
_CONTINUES = b"\xff\xff\xff\xff"  # in front of each message since Arrow 0.15
_END = _CONTINUES + b"\0\0\0\0"


def parquet_rows(file: SourceFile, columns: list[str], longest: int) -> Rows:
    """The rows of a Parquet file. Raises CorpusError where the storage fails."""

    def batches() -> Iterator[pa.RecordBatch]:
        with open_raw(file) as stream:
            # Without pre-buffering a column of a row group is read page by page and not as a whole.
            parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
            names = parquet.schema_arrow.names
            # A column that is missing is told by the batch: it then has all columns' names to show.
            chosen = [column for column in columns if column in names]
            if len(chosen) < len(columns):
                yield from (_nameless(names, group.num_rows) for group in _row_groups(parquet.metadata))
            else:
                for number, group in enumerate(_row_groups(parquet.metadata)):
                    rows = min(_ROWS_PER_BATCH, _fitting(group.num_rows, _size(group, chosen)))
                    yield from parquet.iter_batches(rows, row_groups=[number], columns=chosen, use_threads=False)

    return _file_rows(file, batches(), columns, longest)


def arrow_rows(file: SourceFile, columns: list[str], longest: int) -> Rows:
    """The rows of an Arrow IPC file, in stream or file form.

    A stream without its end mark was cut or never finished. Of a file form that has lost its end, the batches
    in front are read like a stream. Raises CorpusError where the storage fails.
    """
    return _file_rows(file, _arrow_batches(file), columns, longest)


def hub_rows(source: SourceSection, columns: list[str]) -> Rows:
    """The rows of a hub dataset, streamed. Raises CorpusError for anything that is wrong beyond single rows."""
    name = f"hub dataset {source.path}" + (f" ({source.subset})" if source.subset else "")
    return _dataset_rows(name, _open_hub, source, columns)


def disk_rows(source: SourceSection, columns: list[str]) -> Rows:
    """The rows of a `save_to_disk` directory. Raises CorpusError for anything that is wrong beyond single rows."""
    return _dataset_rows(source.path, _open_disk, source, columns)


# Files --------------------------------------------------------------------------------------------------


def _file_rows(file: SourceFile, batches: Iterator[pa.RecordBatch], columns: list[str], longest: int) -> Rows:
    if file.compression is not None:
        raise CorpusError(f"{file.name}: a table inside {file.compression} is not read; decompress it")
    number = 0
    try:
        for batch in batches:
            for row in _table_rows(batch, columns, longest, file.name, number):
                number += 1
                yield row
    except DAMAGE_ERRORS as error:
        where = f"{file.name}, after row {number}" if number else file.name
        yield BadFileError("damaged", f"{where}: can't be read (cut short?): {one_line(error)}")


def _row_groups(metadata: Any) -> Iterator[Any]:
    return (metadata.row_group(number) for number in range(metadata.num_row_groups))


def _size(group: Any, columns: list[str]) -> int:
    """Bytes of a row group's wanted columns, decompressed but still encoded."""
    every = (group.column(number) for number in range(group.num_columns))
    return sum(
        column.total_uncompressed_size
        for column in every
        if column.path_in_schema in columns or column.path_in_schema.split(".")[0] in columns
    )


def _fitting(rows: int, size: int) -> int:
    """So many of the rows that they come to some megabytes, if they are of about one size."""
    return max(1, min(_ROWS_AT_A_TIME, _BYTES_AT_A_TIME * rows // max(size, 1)))


def _nameless(names: list[str], rows: int) -> pa.RecordBatch:
    """A batch of so many rows with nothing in its columns."""
    nothing = pa.nulls(rows)
    return pa.record_batch([nothing] * len(names), names=names)


def _arrow_batches(file: SourceFile) -> Iterator[pa.RecordBatch]:
    with _arrow_source(file) as (source, release):
        begin = source.read(len(_FILE_FORM))
        if begin == _FILE_FORM:
            try:
                reader = pa.ipc.open_file(source)
            except pa.ArrowInvalid:
                source.seek(len(_FILE_FORM))
                yield from _stream_batches(source, release)
                raise  # whatever the stream gave, the end of this file is missing
            for number in range(reader.num_record_batches):
                yield from _slices(reader.get_batch(number), release)
            return
        source.seek(0)
        yield from _stream_batches(source, release)
        if begin.startswith(_CONTINUES):
            source.seek(source.tell() - len(_END))
            if source.read(len(_END)) != _END:
                raise EOFError("no mark at the end of the stream")


def _stream_batches(source: pa.NativeFile, release: Callable[[], None]) -> Iterator[pa.RecordBatch]:
    for batch in pa.ipc.open_stream(source):
        yield from _slices(batch, release)


def _slices(batch: pa.RecordBatch, release: Callable[[], None]) -> Iterator[pa.RecordBatch]:
    """A batch in parts of some megabytes, since a whole corpus can be one batch."""
    batch.validate()
    rows = _fitting(batch.num_rows, batch.nbytes)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
        release()


@contextmanager
def _arrow_source(file: SourceFile) -> Iterator[tuple[pa.NativeFile, Callable[[], None]]]:
    """A readable Arrow file, and what gives pages that were read back to the system."""
    if not is_local(file.fs):
        with open_raw(file) as stream:
            yield pa.PythonFile(stream, mode="r"), lambda: None
        return
    try:
        descriptor = os.open(file.path, os.O_RDONLY)
    except OSError as error:
        raise CorpusError(f"{file.name}: can't be read: {one_line(error)}") from error
    try:
        if os.fstat(descriptor).st_size == 0:
            raise EOFError("an empty file")
        # The memory map is closed with the last array that points into it.
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        yield pa.BufferReader(pa.py_buffer(mapped)), lambda: mapped.madvise(mmap.MADV_DONTNEED)
    finally:
        os.close(descriptor)


# Values -------------------------------------------------------------------------------------------------


def _table_rows(table: pa.RecordBatch | pa.Table, columns: list[str], longest: int, name: str, before: int) -> Rows:
    missing = missing_column(columns, table.schema.names, name)
    twice = next((column for column in columns if table.schema.names.count(column) > 1), None)
    if twice is not None:
        raise CorpusError(f"{name}: has several columns {twice!r}; rename all but the one that is meant")
    cells = [] if missing else [_cells(table.column(column), longest) for column in columns]
    for number in range(before + 1, before + table.num_rows + 1):
        place = f"{name}, row {number}"
        if missing is not None:
            yield missing
            continue
        values = {column: next(values) for column, values in zip(columns, cells, strict=True)}
        bad = next(((column, value) for column, value in values.items() if isinstance(value, _Bad)), None)
        if bad is not None:
            yield BadRowError(bad[1].reason, f"{place}, column {bad[0]!r}: {bad[1].message}")
        else:
            yield Row(place, values)


class _Bad:
    """In the place of a value: why there is none."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = message


def _cells(column: pa.Array | pa.ChunkedArray, longest: int) -> Iterator[Any]:
    """A column's values as Python objects, text decoded here so that bad bytes spoil their own row only.

    Of other types than text and lists of integers nothing is converted, for Python has no form of some of their
    values: dates after the year 9999, for one.
    """
    if isinstance(column, pa.ChunkedArray):
        for chunk in column.chunks:
            yield from _cells(chunk, longest)
        return
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _dictionary_cells(column, longest)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.large_binary())
        column.validate(full=True)
        yield from (_text(scalar, longest) for scalar in column)
    elif _is_list_of_integers(kind):
        column.validate(full=True)
        for scalar in column:
            too_long = scalar.is_valid and scalar.values.nbytes > longest
            yield _Bad("oversized", oversized(longest)) if too_long else scalar.as_py()
    else:
        column.validate(full=True)
        other = _Bad("wrong_type", f"text expected, or a list of token ids, not {kind}")
        yield from (other if valid.as_py() else None for valid in column.is_valid())


def _dictionary_cells(column: pa.DictionaryArray, longest: int) -> Iterator[Any]:
    """Each value is looked up for itself: all of them laid out can take any multiple of the dictionary."""
    column.indices.validate(full=True)
    for scalar in column.indices:
        index = scalar.as_py()
        if index is None:
            yield None
        elif 0 <= index < len(column.dictionary):
            yield from _cells(column.dictionary.slice(index, 1), longest)
        else:
            raise pa.ArrowInvalid(f"index {index} into a dictionary of {len(column.dictionary)} values")


def _is_list_of_integers(kind: pa.DataType) -> bool:
    """Lists of nothing, whose type knows no integers, among them."""
    tests = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    if not any(test(kind) for test in tests):
        return False
    inner = kind.value_type
    return bool(pa.types.is_integer(inner) or pa.types.is_null(inner))


def _text(scalar: Any, longest: int) -> str | _Bad | None:
    buffer = scalar.as_buffer()
    if buffer is None:
        return None
    if buffer.size > longest:
        return _Bad("oversized", oversized(longest))
    try:
        return str(buffer, "utf-8")
    except UnicodeDecodeError as error:
        return _Bad("not_utf8", f"not UTF-8: {one_line(error)}")


# Datasets -----------------------------------------------------------------------------------------------


def _dataset_rows(name: str, opener: Callable[[SourceSection], Any], source: SourceSection, columns: list[str]) -> Rows:
    number = 0
    try:
        dataset = opener(source)
        # Of hub datasets the columns are not always known before the first row.
        if dataset.column_names is not None and not missing_column(columns, dataset.column_names, name):
            dataset = dataset.select_columns(columns)
        for table in dataset.with_format("arrow").iter(batch_size=_ROWS_PER_BATCH):
            for row in _table_rows(table, columns, source.longest_row, name, number):
                number += 1
                yield row
    except (*DAMAGE_ERRORS, *HUB_ERRORS, ImportError) as error:
        where = f"{name}, after row {number}" if number else name
        raise CorpusError(f"{where}: can't be read (cut short?): {one_line(error)}") from error


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

    loaded = datasets.load_from_disk(expand_home(source.path))
    if isinstance(loaded, datasets.DatasetDict):
        if source.split not in loaded:
            raise CorpusError(f"{source.path}: no split {source.split!r}; it has {', '.join(sorted(loaded))}")
        return loaded[source.split]
    return loaded
