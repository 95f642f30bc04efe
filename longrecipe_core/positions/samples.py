"""Read training samples: tokens and position ids gathered by an index."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from longrecipe_core.corpus import TokenShards
from longrecipe_core.positions.index_shards import IndexShards, Int32Array


class IndexedSamples:
    """The samples of an `index` over its `tokens`; knows no strategy. Can be sent to worker processes."""

    def __init__(self, index: Path, tokens: Path) -> None:
        """Open both artifact directories; nothing is read before it is asked for."""
        self._index = IndexShards(index)
        self._tokens = TokenShards(tokens, "train")

    def __len__(self) -> int:
        return len(self._index)

    def runs(self, sample: int) -> tuple[int, Int32Array, Int32Array, Int32Array]:
        """Document row, token starts, position starts and lengths of one sample; int32 `[runs]` each."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of an index of {len(self)}")
        return self._index.runs(sample)

    def __getitem__(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token ids and position ids of one sample, int64 `[train length]` each."""
        document, token_start, position_start, length = self.runs(sample)
        ends = np.cumsum(length, dtype=np.int64)
        before = ends - length
        rows = np.arange(ends[-1])
        positions = rows + np.repeat(position_start - before, length)
        rows += np.repeat(token_start - before, length)
        return self._tokens.input_ids(document).take(rows).astype(np.int64), positions
