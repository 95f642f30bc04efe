"""The `tokens` artifact: one row per document, in `train-NNNNN.arrow` and `validation-NNNNN.arrow` files."""

from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longrecipe_core.corpus.arrow_shards import (
    TOKENS_PER_BATCH,
    TOKENS_PER_SHARD,
    Int32Array,
    MappedShards,
    ShardWriter,
)

Split = Literal["train", "validation"]

SCHEMA = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
    ]
)


class TokenWriter:
    """Writes the documents of one split; see `arrow_shards.ShardWriter` for file ends and errors."""

    def __init__(
        self,
        directory: Path,
        split: str,
        tokens_per_shard: int = TOKENS_PER_SHARD,
        tokens_per_batch: int = TOKENS_PER_BATCH,
    ) -> None:
        self._writer = ShardWriter(directory, split, SCHEMA, tokens_per_shard, tokens_per_batch)

    @property
    def rows(self) -> int:
        """Documents written so far."""
        return self._writer.rows

    @property
    def tokens(self) -> int:
        """Tokens written so far."""
        return self._writer.tokens

    def append(self, document_id: str, source: str, input_ids: Int32Array, prompt_tokens: int = 0) -> None:
        """Add a document: int32 ids `[tokens]`; the first `prompt_tokens` are a prompt (plain text: 0)."""
        count = len(input_ids)
        self._writer.append((document_id, source, input_ids, count, prompt_tokens), count)

    def close(self) -> None:
        """Finish the last file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


class TokenShards(MappedShards):
    """Reads the documents of one split; see `arrow_shards.MappedShards` for what is raised."""

    def __init__(self, directory: str | Path, split: str = "train") -> None:
        super().__init__(directory, split, SCHEMA)
        self._lengths: npt.NDArray[np.int64] | None = None

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each document, int64 `[documents]`."""
        if self._lengths is None:
            self._lengths = self._whole_column("tokens").astype(np.int64)
            self._lengths.flags.writeable = False
        return self._lengths

    def input_ids(self, row: int) -> Int32Array:
        """Token ids of a document, int32 `[tokens]`: a read-only view of the memory map, not a copy."""
        part, inside = self._locate(row)
        return part.slice("input_ids", inside)

    def document_id(self, row: int) -> str:
        """The sha256 of the document's text, 64 hexadecimal digits."""
        return self._value("document_id", row)

    def source(self, row: int) -> str:
        """Which source of the recipe the document came from: its number there and its format, as in
        `0-text`."""
        return self._value("source", row)

    def prompt_tokens(self, row: int) -> int:
        """How many of the leading tokens are a prompt; 0 for plain text."""
        part, inside = self._locate(row)
        return int(part.batch.column("prompt_tokens")[inside].as_py())

    def _value(self, column: str, row: int) -> str:
        part, inside = self._locate(row)
        return str(part.batch.column(column)[inside].as_py())
