"""FLT: full-length training, the expensive baseline. Position `i` for token `i`."""

import numpy as np
import numpy.typing as npt


def positions(lengths: npt.NDArray[np.int64], target_length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The identity `0..n - 1`; `lengths` is `[segments]`, the result int64 `[n]`."""
    return np.arange(lengths.sum(), dtype=np.int64)
