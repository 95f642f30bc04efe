"""LongRecipe: segments of sentences with random skips, and an identity prefix (paper, section 4.2, Algorithm 1)."""

import numpy as np
import numpy.typing as npt


def positions(lengths: npt.NDArray[np.int64], target_length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Segment starts with random skips, then `p[:rp] = 0..rp - 1` for a right point `rp ~ U{1..(n + 1) // 2}`.

    Equation 6 as printed adds 1 to every skip, which contradicts "M = 0 is continuous"; Algorithm 1 and the
    reference code don't, and neither does this.

    Args:
        lengths: int64 `[segments]`, tokens in each.
        target_length: Positions stay below it.
        rng: Skips are drawn first, then the right point.

    Returns:
        int64 `[n]`.
    """
    result = skipped_segments(lengths, target_length, rng)
    right_point = int(rng.integers(1, (result.size + 1) // 2, endpoint=True))
    result[:right_point] = np.arange(right_point)
    return result


def skipped_segments(
    lengths: npt.NDArray[np.int64], target_length: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Segments of consecutive positions with random skips between them, before any right point; int64 `[n]`."""
    tokens = int(lengths.sum())
    shift = cumulative_skips(lengths.size, target_length - tokens, rng)
    return np.arange(tokens, dtype=np.int64) + np.repeat(shift, lengths)


def cumulative_skips(segments: int, total: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How far each segment is shifted: a uniform random composition of `total` into the skips and what is left over.

    The segments take sorted, distinct slots among `total + segments`, the first one slot 0; an empty slot is one
    skipped position. Each weak composition is one such choice of slots, so all are equally likely. (The reference
    draws one slot more and then moves the smallest to 0, so its first skip is about twice as long as the others.)

    Returns:
        int64 `[segments]`: 0 first, never falling, at most `total`.
    """
    slots = np.sort(rng.choice(total + segments - 1, size=segments - 1, replace=False, shuffle=False))
    return np.concatenate([[0], slots - np.arange(segments - 1)]).astype(np.int64)
