"""Which documents are scored, how many tokens of each, and after how much context."""

import numpy as np
import numpy.typing as npt

from longrecipe_core.corpus import TokenShards
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import EvaluationError, RecipeError
from longrecipe_core.recipe import ScoreSection


def resolve_lengths(section: ScoreSection, window: int) -> tuple[int, int | None]:
    """`length` and, for source long-short, `short_length`: the recipe's, else `window` and an eighth of the length.

    Raises:
        RecipeError: No token would have both a long and a short context, and more in the long one.
    """
    length = section.length or window
    if section.source != "long-short":
        return length, None
    short = section.short_length or max(2, length // 8)
    if short > length - 2:
        raise RecipeError(
            f"score.short_length {short} leaves no token of score.length {length} with a longer context; "
            + (f"allowed: 2..{length - 2}" if length >= 4 else "score.length must be 4 or more")
        )
    return length, short


def choose_rows(tokens: TokenShards, section: ScoreSection, length: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows of at most `section.documents` documents with `length` tokens or more, in ascending order, int64.

    Raises:
        EvaluationError: No document is long enough.
    """
    long_enough = np.flatnonzero(tokens.lengths >= length)
    if long_enough.size == 0:
        longest = int(tokens.lengths.max()) if len(tokens) else 0
        raise EvaluationError(
            f"none of {len(tokens)} training documents has the {length} tokens of score.length (the longest has "
            f"{longest}): take longer documents, or set score.length to {longest} or less"
        )
    if long_enough.size < section.documents:
        print(
            f"score: {long_enough.size} of {len(tokens)} training documents have {length} tokens, which is fewer than "
            f"score.documents {section.documents}; all of them are scored",
            flush=True,
        )
    rows: npt.NDArray[np.int64] = np.sort(generator(seed, "score").permutation(long_enough)[: section.documents])
    return rows
