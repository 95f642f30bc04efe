"""Gather: tokens are read from the long document at the drawn positions; the reference's setting `RSS_L`."""

import numpy as np
import numpy.typing as npt

from longrecipe_core.positions import longrecipe


def positions(lengths: npt.NDArray[np.int64], target_length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Exactly the draw of `longrecipe`, skips and then right point; position `p` is also the document row of its token.

    So `lengths` only says how long the contiguous pieces are: the sentence lengths of any `n` tokens of the document
    do (the reference takes those of its first `n`), while a single segment would give the document's front.
    `target_length` must not be above the number of tokens in the document.

    The reference reads the tokens at the positions as they were before the right point, and trains them at the
    positions after it, so its first `rp` tokens do not stand where they stood in the text. Here every token keeps its
    true position, and the first `rp` tokens are the document's first `rp`.

    Returns:
        int64 `[n]`, to be used both as rows of the document and as positions.
    """
    return longrecipe.positions(lengths, target_length, rng)
