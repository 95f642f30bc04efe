"""Copies inside training sequences: what a small base model learns to retrieve from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longrecipe_core.recipe import CopiesSection

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Copied:
    """A sequence with copies in it: token ids, and which of them nothing before foretells; both `[length]`."""

    tokens: Ints
    unforeseen: npt.NDArray[np.bool_]


def put_copies(
    tokens: Ints, section: CopiesSection, progress: float, ids: tuple[int, int], rng: np.random.Generator
) -> Copied:
    """Text `[length]` with copies as `section` says, or as it is: `section.share` of all sequences get copies.

    Far: one span and its copy, both whole, at a distance that is drawn from all that there is room for. Else the span
    is repeated from the sequence's start to its end. A span is the text that stands there, or random tokens, whose
    share goes from the first to the second of `section.random_share` while `progress` goes from 0 to 1.

    Args:
        tokens: int64; is not changed.
        section: What is drawn.
        progress: Share of the training that is done.
        ids: Random tokens are drawn from `ids[0]..ids[1] - 1`.
        rng: Of this sequence alone.
    """
    length = tokens.size
    unforeseen = np.zeros(length, dtype=bool)
    if rng.random() >= section.share:
        return Copied(tokens, unforeseen)
    result = tokens.copy()
    first, last = section.random_share
    is_random = rng.random() < first + (last - first) * progress
    is_far = rng.random() < section.far_share
    least, most = section.span
    span = int(rng.integers(least, most + 1))
    start = distance = 0
    if is_far:
        distance = int(rng.integers(span, length - span + 1))  # from start to start
        start = int(rng.integers(0, length - span - distance + 1))
    if is_random:
        result[start : start + span] = rng.integers(*ids, size=span)
        unforeseen[start : start + span] = True
    if is_far:
        result[start + distance : start + distance + span] = result[start : start + span]
    else:
        result = np.resize(result[:span], length)
    return Copied(result, unforeseen)
