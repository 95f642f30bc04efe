"""PoSE: positional skip-wise training (Zhu et al. 2023, arXiv 2309.10400, section 3.2)."""

import numpy as np
import numpy.typing as npt

from longrecipe_core.errors import PositionError


def positions(
    lengths: npt.NDArray[np.int64], target_length: int, rng: np.random.Generator, chunks: int = 2
) -> npt.NDArray[np.int64]:
    """Cut `n` tokens into `chunks` at uniformly drawn places; shift each chunk by a skip that never falls.

    The first chunk keeps the identity; the skip of chunk `i` is `u_i ~ U{u_(i-1), ..., target_length - n}`.

    Returns:
        int64 `[n]`.

    Raises:
        PositionError: Fewer than two chunks, or more chunks than tokens.
    """
    tokens = int(lengths.sum())
    if not 2 <= chunks <= tokens:
        raise PositionError(f"pose with {chunks} chunks of {tokens} tokens: 2 chunks at least, a token each")
    cuts = np.sort(rng.choice(tokens - 1, size=chunks - 1, replace=False)) + 1
    skip = 0
    result = np.arange(tokens, dtype=np.int64)
    for start, end in zip(cuts, [*cuts[1:], tokens], strict=True):
        skip = int(rng.integers(skip, target_length - tokens, endpoint=True))
        result[start:end] += skip
    return result
