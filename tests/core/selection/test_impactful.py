"""Anchors from an impact table, and the counts that selection reports, against counts by hand."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longrecipe_core.errors import IndexingError
from longrecipe_core.recipe import SelectionSection
from longrecipe_core.selection import TokenClasses, select_tokens, token_classes
from longrecipe_core.selection.impact import SCHEMA, anchor_tokens

WORDS = ["<s>", "but", "cat", "dog", "7", "."]
BUT, END = WORDS.index("but"), WORDS.index(".")


@pytest.fixture(scope="module")
def tokenizer():
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="cat"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")


def impact(scores):
    """A table in which entry `i` was seen once with `scores[i]`."""
    n = len(scores)
    rows = {"token_id": range(n), "token": [""] * n, "token_class": ["x"] * n}
    return pa.table({**rows, "score": scores, "count": [1] * n, "share": [0.0] * n}, schema=SCHEMA)


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def test_sentences_with_an_impactful_token_are_kept(tokenizer):
    section = SelectionSection(strategy="impactful", top_share=0.2, rank_by="score", minimum_count=1)
    classes = token_classes(tokenizer, anchors=anchor_tokens(impact([0.0, 9.0, 1.0, 2.0, 3.0, 8.0]), section))
    # A fifth of six types, rounded up, are two: `but` and `.`, which every sentence of the first text has.
    assert np.flatnonzero(classes.anchor).tolist() == [BUT, END]
    classes = token_classes(tokenizer, anchors=np.arange(6) == BUT)
    ids = np.array(tokenizer.encode("cat 7 . dog but . dog cat . but but . cat cat 7 dog", add_special_tokens=False))
    for seed in range(10):
        selected = select_tokens("impactful", ids, 6, classes, rng(seed))
        assert selected.starts.tolist() == [3, 9]
        # The digit is an anchor for `digits` only, where it is one by its text.
        assert select_tokens("digits", ids, 7, token_classes(tokenizer), rng(seed)).starts.tolist() == [0, 12]


def test_a_table_of_another_vocabulary(tokenizer):
    for anchors in (np.zeros(5, dtype=bool), np.arange(8) == 7):
        with pytest.raises(IndexingError, match=f"{anchors.size} vocabulary entries, the tokenizer 6"):
            token_classes(tokenizer, anchors=anchors)
    padded = token_classes(tokenizer, anchors=np.arange(8) == BUT)
    assert padded.anchor.tolist() == (np.arange(6) == BUT).tolist()


CLASSES = TokenClasses(np.array([False, True, False, False]), np.array([False, False, True, False]), 3)
sentences = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=30)


@settings(max_examples=300)
@given(sentences, st.booleans(), st.floats(0.1, 1), st.sampled_from(["impactful", "none"]), st.integers(0, 2**32 - 1))
def test_counts(sentences, bos, share, strategy, seed):
    ids, number, anchors = ([3], [-1], set()) if bos else ([], [], set())
    for i, (words, anchor) in enumerate(sentences):
        ids += [0] * (words - 1) + [2 if anchor else 0, 1]
        number += [i] * (words + 1)
        anchors |= {i} if anchor else set()
    budget = max(2, round(share * len(ids)))
    selected = select_tokens(strategy, np.array(ids), budget, CLASSES, rng(seed))
    kept = [number[s + i] for s, n in zip(selected.starts, selected.lengths, strict=True) for i in range(n)]
    assert len(kept) == budget
    assert selected.sentences_read == len(sentences)
    assert selected.sentences_kept == len(set(kept) - {-1})
    if strategy == "none":
        assert (selected.sentences_with_anchor, selected.anchor_tokens, selected.topped_up) == (0, 0, False)
        return
    assert selected.sentences_with_anchor == len(anchors)
    assert selected.anchor_tokens == sum(i in anchors for i in kept)
    assert selected.topped_up == (sum(i in anchors for i in number) < budget - bos)
