"""LongRecipe with a fixed right point: the reference's setting `RSS_S_base`."""

import numpy as np
import numpy.typing as npt

from longrecipe_core.errors import PositionError
from longrecipe_core.positions.longrecipe import skipped_segments


def positions(
    lengths: npt.NDArray[np.int64], target_length: int, rng: np.random.Generator, right_point: int = 8000
) -> npt.NDArray[np.int64]:
    """Segment starts with random skips as in `longrecipe`, then `p[:right_point] = 0..right_point - 1`.

    The reference writes 8000 into its code, whatever the train length.

    Returns:
        int64 `[n]`; with `right_point = n` the identity.

    Raises:
        PositionError: A right point below 1 or above the number of tokens.
    """
    tokens = int(lengths.sum())
    if not 1 <= right_point <= tokens:
        raise PositionError(f"longrecipe-fixed with right_point {right_point} and {tokens} tokens: allowed 1..{tokens}")
    result = skipped_segments(lengths, target_length, rng)
    result[:right_point] = np.arange(right_point)
    return result
