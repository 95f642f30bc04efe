"""CREAM: head, middle and tail, the middle drawn from a truncated Gaussian (Wu et al. 2024, arXiv 2406.07138)."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from longrecipe_core.errors import PositionError


def positions(
    lengths: npt.NDArray[np.int64],
    target_length: int,
    rng: np.random.Generator,
    sigma: float = 3.0,
    head: int | None = None,
    relativity: float = 0.5,
) -> npt.NDArray[np.int64]:
    """`n` tokens as head `0..h - 1`, a middle of `m = n - 2h` consecutive positions, and tail `T - h..T - 1`.

    With `f = T / n`: `h = n // 3` with probability `relativity` (the paper's relativity variant), else the short
    `head` (its continuity variant). `x` is a Gaussian of mean `1 + f` and standard deviation `sigma`, truncated to
    `2..2f`; the middle ends at `e ~ U{floor(h + (m - 1) x / 2)..floor(n x / 2) - h - 1}`.

    Formulas and defaults are those of the authors' code. There, `n` is the pretrained window, which is also the length
    trained at; here it is the train length. Four things differ: `f` need not be whole; `x` is neither rounded
    down nor, where the Gaussian leaves `2..2f`, put on the nearer bound; `h` is chosen for each sample, not for 3,000
    documents together; and the text is the selected one, where the authors' code reads it at the positions.

    Args:
        lengths: int64 `[segments]`; only their sum `n` counts.
        target_length: `T`.
        rng: Draws the variant, `x` and `e`, in this order.
        sigma: Above 0, in halves of `n`.
        head: Tokens in the head, and in the tail, of the continuity variant, 1 to `(n - 1) // 2`. When not given, the
            `4T // n` of the authors' code, but not more than `n // 3`.
        relativity: 0 to 1.

    Returns:
        int64 `[n]`, beginning at 0 and ending at `T - 1`.

    Raises:
        PositionError: Fewer than three tokens, or an option outside its range.
    """
    tokens = int(lengths.sum())
    if tokens < 3:
        raise PositionError(f"cream with {tokens} tokens: head, middle and tail take 3 at least")
    if not 0 < sigma < math.inf:
        raise PositionError(f"cream with sigma {sigma}: allowed above 0 and finite")
    if not 0 <= relativity <= 1:
        raise PositionError(f"cream with relativity {relativity}: allowed 0..1")
    if head is None:
        head = min(4 * target_length // tokens, tokens // 3)
    elif not 1 <= head <= (tokens - 1) // 2:
        raise PositionError(f"cream with head {head} and {tokens} tokens: allowed 1..{(tokens - 1) // 2}")
    ends = tokens // 3 if rng.random() < relativity else head
    middle = tokens - 2 * ends
    half_windows = truncated_normal(1 + target_length / tokens, sigma, 2, 2 * target_length / tokens, rng)
    least = math.floor(ends + (middle - 1) * half_windows / 2)
    # min and max only matter against rounding: n x / 2 is at most T, and least at most most.
    most = min(math.floor(tokens * half_windows / 2), target_length) - ends - 1
    last = int(rng.integers(least, max(least, most), endpoint=True))
    return np.concatenate(
        [
            np.arange(ends),
            np.arange(last - middle + 1, last + 1),
            np.arange(target_length - ends, target_length),
        ]
    ).astype(np.int64)


def truncated_normal(mean: float, sigma: float, least: float, most: float, rng: np.random.Generator) -> float:
    """One draw of a Gaussian that is known to lie in `least..most`, by the inverse of its distribution function."""
    gaussian = NormalDist(mean, sigma)
    below, above = gaussian.cdf(least), gaussian.cdf(most)
    share = below + (above - below) * rng.random()
    # 0 and 1 have no finite inverse; they come where sigma is small beside the bounds.
    drawn = gaussian.inv_cdf(share) if 0 < share < 1 else least if share <= 0 else most
    return min(max(drawn, least), most)
