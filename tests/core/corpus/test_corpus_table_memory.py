"""Tables are read in small parts, whatever their row groups, batches and dictionaries say about their rows."""

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longrecipe_core.corpus import iterate_documents
from longrecipe_core.recipe.sections import SourceSection

SHORT = 4_000
LONG, ROWS = 1 << 20, 96  # together 96 MB
MOST = 48 << 20  # 16 rows, and as much again while Arrow's buffer grows
DOCUMENTS = [f"{number} " + "x" * LONG for number in range(3)]


def sorted_by_length() -> bytes:
    """Short rows, and then long ones in row groups of their own: the mean of all is 25 kB."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, pa.schema({"text": pa.string()}), use_dictionary=False, write_batch_size=1) as writer:
        writer.write_table(pa.table({"text": [str(number) for number in range(SHORT)]}))
        for _ in range(ROWS // 24):
            writer.write_table(pa.table({"text": [DOCUMENTS[number % 3] for number in range(24)]}))
    return sink.getvalue()


def one_row_group() -> bytes:
    """The same in one row group: its mean says nothing."""
    texts = [str(number) for number in range(SHORT)] + [DOCUMENTS[number % 3] for number in range(ROWS)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink, use_dictionary=False, write_batch_size=1)
    return sink.getvalue()


def repeated() -> bytes:
    """Each text once in the file's dictionary, and some bits per row."""
    sink = io.BytesIO()
    table = pa.table({"text": [DOCUMENTS[number % 3] for number in range(ROWS)]})
    pq.write_table(table, sink, dictionary_pagesize_limit=16 << 20)
    assert pq.ParquetFile(sink).metadata.row_group(0).column(0).total_uncompressed_size < 5 * LONG
    return sink.getvalue()


def _dictionary() -> pa.Table:
    indices = pa.array([number % 3 for number in range(ROWS)], pa.int32())
    return pa.table({"text": pa.DictionaryArray.from_arrays(indices, pa.array(DOCUMENTS))})


def dictionary_type() -> bytes:
    sink = io.BytesIO()
    pq.write_table(_dictionary(), sink)
    return sink.getvalue()


def dictionary_in_arrow() -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, _dictionary().schema) as writer:
        writer.write_table(_dictionary())
    return sink.getvalue()


@pytest.mark.parametrize("make", [sorted_by_length, one_row_group, repeated, dictionary_type, dictionary_in_arrow])
def test_memory_is_that_of_some_rows(tmp_path: Path, make: Callable[[], bytes]) -> None:
    format = "arrow" if make is dictionary_in_arrow else "parquet"
    path = tmp_path / f"a.{format}"
    path.write_bytes(make())
    default = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(default)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        rows = long = 0
        for document in iterate_documents(SourceSection(path=str(path), format=format)):
            rows += 1
            if len(document.text or "") > 9:
                assert document.text == DOCUMENTS[long % 3]
                long += 1
        peak = tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(default)
    assert long == ROWS
    assert rows == ROWS + (SHORT if make in (sorted_by_length, one_row_group) else 0)
    assert peak < MOST
