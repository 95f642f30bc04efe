"""RPES: randomized positional encodings (Ruoss et al. 2023, arXiv 2305.16843, section 3)."""

import numpy as np
import numpy.typing as npt


def positions(lengths: npt.NDArray[np.int64], target_length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A uniform random `n`-subset of `0..target_length - 1`, sorted: int64 `[n]`; `lengths` is `[segments]`."""
    drawn = rng.choice(target_length, size=int(lengths.sum()), replace=False, shuffle=False)
    return np.sort(drawn).astype(np.int64)
