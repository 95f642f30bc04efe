"""Numbered Arrow IPC files: written row by row in bounded memory, read back through the memory map.

The two kinds of rows that we keep, documents (`shards.py`) and packed rows (`packing.py`), are built on this.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longrecipe_core.errors import ArtifactDamagedError, CorpusError

TOKENS_PER_SHARD = 1 << 26  # 256 MiB of ids: few files, and each still quick to upload again
TOKENS_PER_BATCH = 1 << 20  # 4 MiB of ids: what the writer holds before it goes to disk
_LONGEST_ROW = 1 << 30  # offsets inside an Arrow list<int32> column are 32-bit

Int32Array = npt.NDArray[np.int32]


class ShardWriter:
    """Writes rows to `PREFIX-00000.arrow`, `PREFIX-00001.arrow`, … in a directory.

    A batch of rows, or a file, ends with the row that brings it to its number of tokens: the bytes depend on
    the rows and on those two numbers only, never on who calls or how fast. Without any row, one empty file is
    written, so that "none" differs from "missing". Use as a context manager, or call `close`. What an error
    leaves behind counts for nothing: only the store's manifest makes files an artifact.

    Raises:
        CorpusError: the directory already holds files of this prefix, or a row is too long.
    """

    def __init__(
        self,
        directory: Path,
        prefix: str,
        schema: pa.Schema,
        tokens_per_shard: int = TOKENS_PER_SHARD,
        tokens_per_batch: int = TOKENS_PER_BATCH,
    ) -> None:
        if not 1 <= tokens_per_batch <= _LONGEST_ROW or tokens_per_shard < 1:
            raise ValueError(
                f"tokens_per_shard {tokens_per_shard} must be at least 1, tokens_per_batch {tokens_per_batch}"
                f" within 1..{_LONGEST_ROW}"
            )
        directory.mkdir(parents=True, exist_ok=True)
        left = sorted(directory.glob(f"{prefix}-*.arrow"))
        if left:
            raise CorpusError(f"{left[0]} is there already; shards are written into an empty directory")
        self.rows = 0
        self.tokens = 0
        self._directory = directory
        self._prefix = prefix
        self._schema = schema
        self._tokens_per_shard = tokens_per_shard
        self._tokens_per_batch = tokens_per_batch
        self._pending: list[tuple[Any, ...]] = []
        self._pending_tokens = 0
        self._shard_tokens = 0
        self._shards = 0
        self._file: pa.ipc.RecordBatchFileWriter | None = None

    def append(self, row: tuple[Any, ...], tokens: int) -> None:
        """Add one row: a value per column of the schema, int32 arrays for lists; `tokens` is its size."""
        if tokens > _LONGEST_ROW:
            raise CorpusError(f"a row of {tokens} tokens can't be stored; the longest has {_LONGEST_ROW}")
        self._pending.append(row)
        self._pending_tokens += tokens
        self._shard_tokens += tokens
        self.rows += 1
        self.tokens += tokens
        if self._pending_tokens >= self._tokens_per_batch:
            self._write_batch()
        if self._shard_tokens >= self._tokens_per_shard:
            self._end_shard()

    def close(self) -> None:
        """Write what is pending and end the last file. May be called twice."""
        if self._pending or self._shards == 0:
            self._write_batch()
        self._end_shard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()
            self._file = None

    def _write_batch(self) -> None:
        if self._file is None:
            path = self._directory / f"{self._prefix}-{self._shards:05d}.arrow"
            self._file = pa.ipc.new_file(str(path), self._schema)
            self._shards += 1
        if self._pending:
            columns = zip(self._schema, zip(*self._pending, strict=True), strict=True)
            arrays = [_column(field.type, values) for field, values in columns]
            self._file.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._pending = []
        self._pending_tokens = 0

    def _end_shard(self) -> None:
        if self._pending:
            self._write_batch()
        if self._file is not None:
            self._file.close()
        self._file = None
        self._shard_tokens = 0


def _column(kind: pa.DataType, values: tuple[Any, ...]) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.array(values, type=kind)
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    flat = np.concatenate(values).astype(np.int32, copy=False)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind)


class _ListColumns:
    """The list columns of one record batch as numpy views of the memory map."""

    def __init__(self, batch: pa.RecordBatch, names: list[str]) -> None:
        self.batch = batch
        self._views = {}
        for name in names:
            array = batch.column(name)
            self._views[name] = (array.offsets.to_numpy(), array.values.to_numpy(zero_copy_only=True))

    def slice(self, name: str, row: int) -> Int32Array:
        offsets, values = self._views[name]
        part: Int32Array = values[offsets[row] : offsets[row + 1]]
        return part


class MappedShards:
    """All `PREFIX-NNNNN.arrow` files of a directory as one list of rows.

    Nothing is read before it is asked for, and a copy sent to another process opens the files there anew.

    Raises:
        ArtifactDamagedError: a file is missing, is cut short or holds other columns; the message names it.
        IndexError: a row outside `0..len − 1`.
    """

    def __init__(self, directory: str | Path, prefix: str, schema: pa.Schema) -> None:
        self.directory = Path(directory)
        self._prefix = prefix
        self._schema = schema
        self._batches: list[_ListColumns] | None = None
        self._starts: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)

    def __len__(self) -> int:
        self._open()
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": None, "_starts": np.zeros(1, dtype=np.int64)}

    def _open(self) -> list[_ListColumns]:
        if self._batches is not None:
            return self._batches
        paths = sorted(self.directory.glob(f"{self._prefix}-*.arrow"))
        expected = [f"{self._prefix}-{number:05d}.arrow" for number in range(max(len(paths), 1))]
        if [path.name for path in paths] != expected:
            found = ", ".join(path.name for path in paths) or "none"
            raise ArtifactDamagedError(f"{self.directory}: shards {', '.join(expected)} expected, found {found}")
        lists = [field.name for field in self._schema if pa.types.is_list(field.type)]
        batches: list[_ListColumns] = []
        for path in paths:
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                if not reader.schema.equals(self._schema):
                    raise ArtifactDamagedError(f"{path}: columns {reader.schema.names}, not {self._schema.names}")
                for number in range(reader.num_record_batches):
                    batches.append(_ListColumns(reader.get_batch(number), lists))
            except (pa.ArrowException, OSError) as error:
                raise ArtifactDamagedError(f"{path}: not a whole Arrow file: {_line(error)}") from error
        # The starts first: another thread takes set batches for an open reader.
        self._starts = np.cumsum([0, *(part.batch.num_rows for part in batches)], dtype=np.int64)
        self._batches = batches
        return batches

    def _locate(self, row: int) -> tuple[_ListColumns, int]:
        """The record batch that holds a row, and the row's number in it."""
        batches = self._open()
        if not 0 <= row < self._starts[-1]:
            raise IndexError(f"row {row} of {self.directory}, which has {self._starts[-1]} {self._prefix} rows")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return batches[number], row - int(self._starts[number])

    def _whole_column(self, name: str) -> npt.NDArray[Any]:
        """A number column of all rows, copied into one array."""
        parts = [part.batch.column(name).to_numpy() for part in self._open()]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
