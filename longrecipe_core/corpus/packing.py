"""Samples laid end to end and cut into rows of one length, and the files that hold those rows.

The reference packs its annealing data so (paper, section 4.3). A sample may go on in the next row; no token
is lost.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from longrecipe_core.corpus.arrow_shards import (
    TOKENS_PER_BATCH,
    TOKENS_PER_SHARD,
    Int32Array,
    MappedShards,
    ShardWriter,
)

PREFIX = "packed"
SCHEMA = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("sample_starts", pa.list_(pa.int32()), nullable=False),
        pa.field("prompt_tokens", pa.list_(pa.int32()), nullable=False),
    ]
)


@dataclass(frozen=True)
class PackedRow:
    """One row of packed samples.

    Attributes:
        input_ids: int32 `[tokens]`.
        sample_starts: int32 `[pieces]`, where each piece of a sample begins in this row; the first is 0, also
            where that piece continues a sample of the row before.
        prompt_tokens: int32 `[pieces]`, how many leading tokens of each piece are prompt.
    """

    input_ids: Int32Array
    sample_starts: Int32Array
    prompt_tokens: Int32Array


def pack(samples: Iterable[tuple[Int32Array, int]], length: int) -> Iterator[PackedRow]:
    """Lay samples (ids and number of prompt tokens) end to end and cut them into rows of `length` tokens.

    Only the last row may be shorter. Holds one row and one sample at a time.
    """
    pieces: list[Int32Array] = []
    starts: list[int] = []
    prompts: list[int] = []
    filled = 0
    for input_ids, prompt_tokens in samples:
        taken = 0
        while taken < len(input_ids):
            piece = input_ids[taken : taken + length - filled]
            pieces.append(piece)
            starts.append(filled)
            prompts.append(min(max(prompt_tokens - taken, 0), len(piece)))
            taken += len(piece)
            filled += len(piece)
            if filled == length:
                yield _row(pieces, starts, prompts)
                pieces, starts, prompts, filled = [], [], [], 0
    if pieces:
        yield _row(pieces, starts, prompts)


def _row(pieces: list[Int32Array], starts: list[int], prompts: list[int]) -> PackedRow:
    return PackedRow(
        np.concatenate(pieces).astype(np.int32, copy=False),
        np.array(starts, dtype=np.int32),
        np.array(prompts, dtype=np.int32),
    )


class PackedWriter:
    """Writes packed rows to `packed-NNNNN.arrow`; see `arrow_shards.ShardWriter`."""

    def __init__(
        self,
        directory: Path,
        tokens_per_shard: int = TOKENS_PER_SHARD,
        tokens_per_batch: int = TOKENS_PER_BATCH,
    ) -> None:
        self._writer = ShardWriter(directory, PREFIX, SCHEMA, tokens_per_shard, tokens_per_batch)

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._writer.rows

    @property
    def tokens(self) -> int:
        """Tokens written so far."""
        return self._writer.tokens

    def append(self, row: PackedRow) -> None:
        """Add one row."""
        self._writer.append((row.input_ids, row.sample_starts, row.prompt_tokens), len(row.input_ids))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


class PackedShards(MappedShards):
    """Reads packed rows; see `arrow_shards.MappedShards` for what is raised."""

    def __init__(self, directory: str | Path) -> None:
        super().__init__(directory, PREFIX, SCHEMA)

    def row(self, row: int) -> PackedRow:
        """One row; its arrays are read-only views of the memory map."""
        part, inside = self._locate(row)
        return PackedRow(
            part.slice("input_ids", inside),
            part.slice("sample_starts", inside),
            part.slice("prompt_tokens", inside),
        )
