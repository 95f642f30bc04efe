"""NLL of the same tokens with contexts of several lengths (sliding windows: Press et al. 2021, arXiv 2012.15832)."""

from typing import Any

import numpy as np

from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.long_ppl import cut
from longrecipe_core.evaluation.nll import Ints, mean_row, token_nll
from longrecipe_core.recipe import ContextNllSection


def window_ends(section: ContextNllSection, lengths: Ints) -> list[Ints]:
    """Per document, where windows end: every `stride` tokens, from where the longest window fits.

    Raises:
        EvaluationError: No document is as long as the longest window.
    """
    longest = max(section.lengths)
    if lengths.max() < longest:
        raise EvaluationError(
            f"evaluation.context_nll.lengths: none of the documents has {longest} tokens (the longest has "
            f"{lengths.max()}): lower it, or raise evaluation.minimum_length"
        )
    return [np.arange(longest, length + 1, section.stride) for length in lengths]


def context_nll(
    model: Any, documents: Ints, lengths: Ints, length: int, section: ContextNllSection, *, bf16: bool, chunk: int
) -> dict[str, float | int]:
    """Mean nats of the last `stride` tokens of windows of `length` tokens: a context of `length - stride` or more.

    The tokens are the same for each of the section's lengths. Standard error over documents.
    """
    sums = []
    for row, ends in enumerate(window_ends(section, lengths)):
        if ends.size:
            windows, sizes = cut(documents[row], ends - length, length)
            sums.append(token_nll(model, windows, sizes, bf16=bf16, chunk=chunk)[:, -section.stride :].ravel())
    widest = max(len(values) for values in sums)
    return mean_row(np.stack([np.pad(values, (0, widest - len(values)), constant_values=np.nan) for values in sums]))
