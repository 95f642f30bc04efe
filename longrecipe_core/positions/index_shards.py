"""The files of the `index` artifact: `index-NNNNN.arrow`, not compressed, so that readers map them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longrecipe_core.corpus.arrow_shards import MappedShards, ShardWriter

Int32Array = npt.NDArray[np.int32]

SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64()),
        pa.field("token_start", pa.list_(pa.int32())),
        pa.field("position_start", pa.list_(pa.int32())),
        pa.field("length", pa.list_(pa.int32())),
    ]
)
SAMPLES_PER_SHARD = 512
SAMPLES_PER_BATCH = 64
"""Of a record batch, and of what a worker draws at a time: rpes has 0.3 MB per sample at 38,400 tokens."""


def index_writer(directory: Path) -> ShardWriter:
    """Takes rows `(document, token_start, position_start, length)`, each of size 1."""
    return ShardWriter(directory, "index", SCHEMA, SAMPLES_PER_SHARD, SAMPLES_PER_BATCH)


class IndexShards(MappedShards):
    """Reads the rows; see `arrow_shards.MappedShards` for what is raised."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "index", SCHEMA)

    def runs(self, sample: int) -> tuple[int, Int32Array, Int32Array, Int32Array]:
        """Document row, token starts, position starts and lengths of one sample; int32 `[runs]`, views of the map."""
        part, inside = self._locate(sample)
        token_start, position_start, length = (
            part.slice(name, inside) for name in ("token_start", "position_start", "length")
        )
        return int(part.batch.column("document")[inside].as_py()), token_start, position_start, length
