"""Sentences to a token budget: anchors first, a uniform random subset, in document order (paper, section 4.1)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.errors import IndexingError
from longrecipe_core.selection.sentences import TokenClasses, sentence_starts

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selected:
    """What is kept of a document, and counts for the report. A leading BOS counts as token, not as sentence."""

    starts: Ints
    """First token of each sentence kept, int64 `[kept]`, in document order."""
    lengths: Ints
    """Tokens of each, int64 `[kept]`."""
    sentences_read: int
    sentences_kept: int
    sentences_with_anchor: int
    """Of those read."""
    anchor_tokens: int
    """Tokens kept that stand in anchor sentences."""
    topped_up: bool
    """The anchor sentences had fewer tokens than the budget."""


def select_tokens(
    strategy: str, input_ids: npt.NDArray[Any], budget: int, classes: TokenClasses, rng: np.random.Generator
) -> Selected:
    """Pick exactly `budget` tokens of a document, whole sentences but for one: the last kept, where it can be cut.

    `impactful` and `digits`: sentences with a token of `classes.anchor` are anchors. `random`: each sentence is one
    with probability 1/2. `none`: no sentence is dropped; one run of `budget` tokens at a uniformly drawn start.
    Anchors above the budget: a uniform random subset of them; below it: topped up with random others.
    A leading BOS is always kept, since the model meets one at position 0 wherever it is used.

    Args:
        strategy: `impactful`, `digits`, `random` or `none`.
        input_ids: Whole numbers `[tokens]`, the document up to the target length.
        budget: Tokens to keep (the train length).
        classes: Of the tokenizer that made `input_ids`.
        rng: Where every draw comes from.

    Raises:
        IndexingError: The document has fewer tokens than the budget, or the strategy is unknown.
    """
    if len(input_ids) < budget:
        raise IndexingError(f"a document of {len(input_ids)} tokens can't fill a train length of {budget}")
    bos = int(classes.bos is not None and len(input_ids) > 1 and budget > 1 and input_ids[0] == classes.bos)
    selected = _select(strategy, input_ids[bos:], budget - bos, classes, rng)
    if not bos:
        return selected
    starts = np.concatenate([[0], selected.starts + 1])
    return replace(selected, starts=starts, lengths=np.concatenate([[1], selected.lengths]))


def _select(
    strategy: str, input_ids: npt.NDArray[Any], budget: int, classes: TokenClasses, rng: np.random.Generator
) -> Selected:
    starts = sentence_starts(input_ids, classes.ends_sentence)
    if strategy == "none":
        return _one_run(starts, len(input_ids), budget, rng)
    if strategy in ("impactful", "digits"):
        anchor = _sentences_with(classes.anchor.take(input_ids), starts)
    elif strategy == "random":
        anchor = rng.random(starts.size) < 0.5
    else:
        raise IndexingError(f"selection strategy {strategy!r} is unknown; allowed: impactful, digits, random, none")
    lengths = np.diff(np.append(starts, len(input_ids)))
    # Anchors in random order, then the others in random order: the shortest front part that fills the budget is a
    # uniform subset of the anchors where they suffice, and all of them with random others where they don't.
    order = np.concatenate([rng.permutation(np.flatnonzero(anchor)), rng.permutation(np.flatnonzero(~anchor))])
    drawn = int(np.searchsorted(np.cumsum(lengths[order]), budget)) + 1
    kept = np.sort(order[:drawn])
    topped_up = bool(lengths[anchor].sum() < budget)
    # The last sentence is cut to the budget. Where it is too short for that, the one drawn last is, which never is:
    # dropping whole sentences from the end would lose anchors and thin out the document's end.
    excess = lengths[kept].sum() - budget
    lengths[kept[-1] if lengths[kept[-1]] > excess else order[drawn - 1]] -= excess
    return Selected(
        starts[kept],
        lengths[kept],
        sentences_read=starts.size,
        sentences_kept=kept.size,
        sentences_with_anchor=int(anchor.sum()),
        anchor_tokens=int(lengths[kept][anchor[kept]].sum()),
        topped_up=topped_up,
    )


def _sentences_with(flags: npt.NDArray[np.bool_], starts: Ints) -> npt.NDArray[np.bool_]:
    """Which sentences hold a flagged token: bool `[tokens]` to bool `[sentences]`."""
    hits = np.flatnonzero(flags)
    if hits.size > starts.size:
        return np.logical_or.reduceat(flags, starts)
    # Few are looked up in a third of the time.
    found = np.zeros(starts.size, dtype=bool)
    found[np.searchsorted(starts, hits, side="right") - 1] = True
    return found


def _one_run(starts: Ints, tokens: int, budget: int, rng: np.random.Generator) -> Selected:
    first = int(rng.integers(0, tokens - budget, endpoint=True))
    after, end = np.searchsorted(starts, [first + 1, first + budget])
    kept = np.concatenate([[first], starts[after:end]])
    lengths = np.diff(np.append(kept, first + budget))
    return Selected(kept, lengths, starts.size, kept.size, 0, 0, topped_up=False)
