"""Segments of sentences, runs, and where the tokens and the counts of a sample come from."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from longrecipe_core.corpus import TokenShards, TokenWriter
from longrecipe_core.errors import IndexingError
from longrecipe_core.positions.draws import IndexPlan, as_runs, draw_sample, group_sentences
from longrecipe_core.recipe import ContextSection, PositionsSection, SelectionSection
from longrecipe_core.selection import TokenClasses

WORD, END, ANCHOR, BOS = range(4)
CLASSES = TokenClasses(np.arange(4) == END, np.arange(4) == ANCHOR, BOS)


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
def test_groups_are_of_neighbouring_sentences(lengths, least, more, seed):
    generator = np.random.Generator(np.random.Philox(seed))
    grouped = group_sentences(np.array(lengths), (least, least + more), generator).tolist()
    assert sum(grouped) == sum(lengths)
    ends = list(itertools.accumulate(lengths))
    group_ends = [ends.index(end) + 1 for end in itertools.accumulate(grouped)]  # each is a sentence's end
    sizes = [b - a for a, b in itertools.pairwise([0, *group_ends])]
    assert all(least <= size <= least + more for size in sizes[:-1])
    assert 1 <= sizes[-1] <= least + more


def test_the_size_of_a_group_is_uniform():
    generator = np.random.Generator(np.random.Philox(3))
    ones = np.ones(60, dtype=np.int64)
    seen = Counter(n for _ in range(400) for n in group_sentences(ones, (2, 4), generator)[:-1].tolist())
    assert set(seen) == {2, 3, 4}
    # By sizes drawn one after the other; only the last group of a sample is left out.
    assert chisquare([seen[n] for n in (2, 3, 4)]).pvalue > 1e-3


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=40))
def test_runs_hold_the_rows_and_are_maximal(steps):
    rows = np.cumsum([a for a, _ in steps])
    positions = np.cumsum([b for _, b in steps])
    token_start, position_start, length = as_runs(rows, positions)
    assert token_start.dtype == position_start.dtype == length.dtype == np.int32
    assert unrolled(token_start, length) == rows.tolist()
    assert unrolled(position_start, length) == positions.tolist()
    assert len(length) == 1 + len({*jumps(rows.tolist()), *jumps(positions.tolist())})


# --- samples -------------------------------------------------------------------------------------------------


def write(directory, documents):
    """The tokens artifact of lists of ids."""
    with TokenWriter(directory, "train") as writer:
        for number, ids in enumerate(documents):
            writer.append(f"{number:064x}", "0-text", np.array(ids, dtype=np.int32))
    return TokenShards(directory, "train")


def plan(strategy="longrecipe", selection="digits", train=32, target=96, **options):
    return IndexPlan(
        CLASSES,
        ContextSection(target_length=target, train_length=train),
        SelectionSection(strategy=selection),
        PositionsSection(strategy=strategy, **options),
        seed=3,
    )


def unrolled(starts, lengths):
    return [start + i for start, length in zip(starts.tolist(), lengths.tolist(), strict=True) for i in range(length)]


def jumps(values):
    return [i for i in range(1, len(values)) if values[i] != values[i - 1] + 1]


def prose(tokens, seed=0, bos=True):
    """BOS, then sentences of 2 to 9 tokens, a third of them with an anchor."""
    generator, ids = np.random.default_rng(seed), [BOS] if bos else []
    while len(ids) < tokens:
        words = [WORD] * int(generator.integers(1, 9))
        words[0] = ANCHOR if generator.random() < 0.3 else WORD
        ids += [*words, END]
    return ids[:tokens]


def test_two_or_three_sentences_to_a_segment(tmp_path):
    """Sentences of four tokens: positions jump at every fourth token only, and never twice within two sentences."""
    shards = write(tmp_path, [[WORD, ANCHOR if n % 2 else WORD, WORD, END] * 100 for n in range(20)])
    between = {}
    for least, most in ((1, 1), (2, 3)):
        gaps = Counter()
        for sample in range(100):
            grouped = plan(train=80, target=400, sentences_per_segment=(least, most))
            (_, _, position_start, length), _ = draw_sample(grouped, shards, sample % 20, sample)
            at = jumps(unrolled(position_start, length))
            assert [i for i in at[1:] if i % 4] == []  # the first may be the right point
            gaps.update((b - a) // 4 for a, b in itertools.pairwise(at[1:]))
        between[least] = gaps
    assert min(between[1]) == 1
    assert min(between[2]) == 2
    assert {2, 3} <= set(between[2])


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("tokens", [40, 96, 150])
def test_gather_keeps_every_token_at_its_true_position(tmp_path, tokens, bos):
    ids = prose(tokens, bos=bos)
    shards = write(tmp_path, [ids])
    reached, jumped = set(), 0
    for sample in range(60):
        (document, token_start, position_start, length), counts = draw_sample(plan("gather", "none"), shards, 0, sample)
        rows = unrolled(token_start, length)
        assert document == 0
        assert rows == unrolled(position_start, length)
        assert len(rows) == 32
        assert rows == sorted(set(rows))
        assert rows[0] == 0
        assert rows[-1] < min(tokens, 96)
        # As many pieces at most as the first 32 tokens have sentences, and the cut of the right point.
        sentences = sum(ids[i - 1] == END and ids[i] != END for i in range(1, 32)) + 1
        assert len(length) <= sentences + 1
        jumped += len(length) > 2
        reached |= set(rows)
        assert (counts.tokens_read, counts.tokens_kept, counts.topped_up) == (min(tokens, 96), 32, 0)
        of = np.cumsum([0] + [ids[i - 1] == END for i in range(1, tokens)])
        assert counts.sentences_kept == len({of[row] for row in rows if not (bos and row == 0)})
    assert reached == set(range(min(tokens, 96)))
    assert jumped > 50


def test_gather_needs_as_many_tokens_as_the_train_length(tmp_path):
    shards = write(tmp_path, [prose(31)])
    with pytest.raises(IndexingError, match=r"row 0, document 0.*31 tokens can't fill a train length of 32"):
        draw_sample(plan("gather", "none"), shards, 0, 0)


@pytest.mark.parametrize("wrong", [4, 1_000_000, -1])
def test_ids_outside_the_vocabulary(tmp_path, wrong):
    ids = prose(50)
    ids[40] = wrong
    shards = write(tmp_path, [prose(50), ids])
    draw_sample(plan(), shards, 0, 0)
    with pytest.raises(IndexingError, match=rf"train row 1, document 0+1: holds token id {wrong}, outside .* 0\.\.3;"):
        draw_sample(plan(), shards, 1, 0)


@settings(max_examples=60)
@given(st.integers(32, 200), st.sampled_from(["digits", "random", "none"]), st.integers(0, 1000))
def test_counts_are_those_of_the_rows(tmp_path_factory, tokens, selection, sample):
    ids = prose(tokens, seed=tokens)
    shards = write(tmp_path_factory.mktemp("tokens"), [ids])
    (_, token_start, _, length), counts = draw_sample(plan(selection=selection), shards, 0, sample)
    rows, read = unrolled(token_start, length), min(tokens, 96)
    of = (np.cumsum([0] + [ids[i - 1] == END for i in range(1, tokens)])).tolist()
    assert (counts.samples, counts.runs, counts.tokens_read, counts.tokens_kept) == (1, length.size, read, 32)
    assert counts.kept_by_place.tolist() == [sum(20 * row // tokens == i for row in rows) for i in range(20)]
    assert counts.read_by_place.tolist() == [sum(20 * row // tokens == i for row in range(read)) for i in range(20)]
    assert counts.sentences_read == len(set(of[1:read]))
    assert counts.sentences_kept == len({of[row] for row in rows if row > 0})
    if selection == "digits":
        anchors = {of[i] for i in range(1, read) if ids[i] == ANCHOR}
        assert counts.sentences_with_anchor == len(anchors)
        assert counts.anchor_tokens == sum(of[row] in anchors for row in rows if row > 0)
        assert counts.topped_up == (sum(of[i] in anchors for i in range(1, read)) < 31)
