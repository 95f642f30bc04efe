"""Read training samples: tokens and position ids gathered by an index."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longrecipe_core.corpus import TokenShards
from longrecipe_core.errors import ArtifactDamagedError


class IndexedSamples:
    """The samples of an `index` over its `tokens`; knows no strategy. Can be sent to worker processes."""

    def __init__(self, index: Path, tokens: Path) -> None:
        """Open both artifact directories; nothing is read before it is asked for."""
        self._index = index
        self._tokens = TokenShards(tokens, "train")
        self._table: pa.Table | None = None

    @property
    def table(self) -> pa.Table:
        """The index rows (see `index.SCHEMA`)."""
        if self._table is None:
            paths = sorted(self._index.glob("index-*.arrow"))
            if not paths:
                raise ArtifactDamagedError(f"{self._index}: holds no index-*.arrow shards")
            self._table = pa.concat_tables([pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths])
        return self._table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    def runs(self, sample: int) -> tuple[int, npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Document row, token starts, position starts and lengths of one sample; int32 `[runs]` each."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of an index of {len(self)}")
        columns = [
            self.table.column(name)[sample].values.to_numpy() for name in ("token_start", "position_start", "length")
        ]
        return int(self.table.column("document")[sample].as_py()), columns[0], columns[1], columns[2]

    def __getitem__(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token ids and position ids of one sample, int64 `[train length]` each."""
        document, token_start, position_start, length = self.runs(sample)
        lengths = length.astype(np.int64)
        offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = offset + np.repeat(token_start, lengths)
        positions = offset + np.repeat(position_start, lengths)
        return self._tokens.input_ids(document)[rows].astype(np.int64), positions
