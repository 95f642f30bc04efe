"""LongPPL: perplexity of the tokens that only a long context makes likely (Fang et al. 2024, arXiv 2410.23771)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.evaluation.nll import Ints, mean_row, token_nll
from longrecipe_core.recipe import LongPplSection

Floats = npt.NDArray[np.float64]


def key_tokens(
    evaluator: Any, documents: Ints, lengths: Ints, section: LongPplSection, *, bf16: bool, chunk: int
) -> npt.NDArray[np.bool_]:
    """Which tokens are key; `[documents, target_length - 1]`, column `i` is the token at position `i + 1`.

    Key is a token whose log probability rises by more than `difference` nats from the short context to the long one
    (long-short difference, LSD), and is above `likelihood` with the long one (long-context likelihood, LCL). The short
    context is the last `short_length` tokens, and up to `step - 1` more: `step` tokens share a start.
    """
    long = -token_nll(evaluator, documents, lengths, bf16=bf16, chunk=chunk)
    short = np.full_like(long, np.nan)
    for row, length in enumerate(lengths):
        starts = np.arange(section.step, length - section.short_length, section.step)  # from 0 on both are the same
        if not starts.size:
            continue
        windows, sizes = cut(documents[row, :length], starts, section.short_length + section.step)
        found = -token_nll(evaluator, windows, sizes, bf16=bf16, chunk=chunk)[:, section.short_length - 1 :]
        for start, size, values in zip(starts, sizes, found, strict=True):
            first = start + section.short_length - 1  # the column of the first token that is scored
            short[row, first : start + size - 1] = values[: size - section.short_length]
    # Comparisons with NaN are false: a document has ended, or the short context is the long one.
    return (long - short > section.difference) & (long > section.likelihood)


def cut(document: Ints, starts: Ints, width: int) -> tuple[Ints, Ints]:
    """Windows of a document, `[starts, width]`, padded with 0 at the end, and their lengths."""
    sizes = np.minimum(width, len(document) - starts)
    windows = np.zeros((len(starts), width), dtype=np.int64)
    for row, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        windows[row, :size] = document[start : start + size]
    return windows, sizes


def perplexity_row(nll: Floats, chosen: npt.NDArray[np.bool_]) -> dict[str, float | int]:
    """exp of the mean over the chosen tokens, its standard error over documents (delta method), and their count.

    `nll` is `[documents, target_length - 1]` with NaN where a document has ended; NaN where nothing is chosen.
    """
    row = mean_row(np.where(chosen, nll, np.nan))
    value = float(np.exp(row["value"]))
    return row | {"value": value, "standard_error": value * row["standard_error"]}
