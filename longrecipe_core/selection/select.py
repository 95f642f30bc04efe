"""Sentences to a token budget: anchors first, a uniform random subset, in document order (paper, section 4.1)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.errors import IndexingError
from longrecipe_core.selection.sentences import TokenClasses, sentence_starts

Spans = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def select_tokens(
    strategy: str, input_ids: npt.NDArray[Any], budget: int, classes: TokenClasses, rng: np.random.Generator
) -> Spans:
    """Pick exactly `budget` tokens of a document, whole sentences but for one: the last kept, where it can be cut.

    `digits`: sentences with a digit are anchors. `random`: each sentence is one with probability 1/2. `none`: no
    sentence is dropped; one run of `budget` tokens at a uniformly drawn start.
    Anchors above the budget: a uniform random subset of them; below it: topped up with random others.
    A leading BOS is always kept, since the model meets one at position 0 wherever it is used.

    Args:
        strategy: `digits`, `random` or `none`.
        input_ids: Whole numbers `[tokens]`, the document up to the target length.
        budget: Tokens to keep (the train length).
        classes: Of the tokenizer that made `input_ids`.
        rng: Where every draw comes from.

    Returns:
        Starts and lengths of the sentences kept, int64 `[kept]` each, in document order.

    Raises:
        IndexingError: The document has fewer tokens than the budget, or the strategy is unknown.
    """
    if len(input_ids) < budget:
        raise IndexingError(f"a document of {len(input_ids)} tokens can't fill a train length of {budget}")
    bos = int(classes.bos is not None and len(input_ids) > 1 and budget > 1 and input_ids[0] == classes.bos)
    starts, lengths = _select(strategy, input_ids[bos:], budget - bos, classes, rng)
    if bos:
        starts, lengths = np.concatenate([[0], starts + 1]), np.concatenate([[1], lengths])
    return starts, lengths


def _select(
    strategy: str, input_ids: npt.NDArray[Any], budget: int, classes: TokenClasses, rng: np.random.Generator
) -> Spans:
    if strategy == "none":
        return _one_run(input_ids, budget, classes, rng)
    starts = sentence_starts(input_ids, classes.ends_sentence)
    if strategy == "digits":
        anchor = np.logical_or.reduceat(classes.has_digit[input_ids], starts)
    elif strategy == "random":
        anchor = rng.random(starts.size) < 0.5
    else:
        raise IndexingError(f"selection strategy {strategy!r} is unknown; allowed: digits, random, none")
    lengths = np.diff(np.append(starts, len(input_ids)))
    # Anchors in random order, then the others in random order: the shortest front part that fills the budget is a
    # uniform subset of the anchors where they suffice, and all of them with random others where they don't.
    order = np.concatenate([rng.permutation(np.flatnonzero(anchor)), rng.permutation(np.flatnonzero(~anchor))])
    drawn = int(np.searchsorted(np.cumsum(lengths[order]), budget)) + 1
    kept = np.sort(order[:drawn])
    # The last sentence is cut to the budget. Where it is too short for that, the one drawn last is, which never is:
    # dropping whole sentences from the end would lose anchors and thin out the document's end.
    excess = lengths[kept].sum() - budget
    lengths[kept[-1] if lengths[kept[-1]] > excess else order[drawn - 1]] -= excess
    return starts[kept], lengths[kept]


def _one_run(input_ids: npt.NDArray[Any], budget: int, classes: TokenClasses, rng: np.random.Generator) -> Spans:
    first = int(rng.integers(0, len(input_ids) - budget, endpoint=True))
    starts = first + sentence_starts(input_ids[first : first + budget], classes.ends_sentence)
    return starts, np.diff(np.append(starts, first + budget))
