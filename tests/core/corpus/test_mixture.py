"""Which document each sample comes from, against counts by plain arithmetic."""

import re
from collections import Counter
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from longrecipe_core.corpus import TokenShards, TokenWriter, generator
from longrecipe_core.corpus.mixture import Mixture, Sources, apportion, schedule, source_number
from longrecipe_core.errors import IndexingError
from longrecipe_core.recipe import CorpusSection, CorpusSourceSection, UpsamplingSection

TRAIN = 10


def sources(*numbers):
    used = sorted(set(numbers))
    return Sources(tuple(f"{n}-text" for n in used), np.array([used.index(n) for n in numbers]))


def drawn(lengths, of, weights=None, longer_than=None, share=0.7, samples=None, seed=5, log=lambda line: None):
    upsampling = None if longer_than is None else UpsamplingSection(longer_than=longer_than, share=share)
    return schedule(
        np.array(lengths),
        sources(*of),
        Mixture(weights, upsampling),
        train_length=TRAIN,
        samples=samples,
        seed=seed,
        log=log,
    )


def test_without_weights_and_up_sampling_it_is_the_order_of_earlier_releases():
    lengths, lines = [10, 9, 40, 11, 3, 10, 99], []
    rows = drawn(lengths, [0, 0, 1, 1, 2, 2, 2], samples=12, log=lines.append)
    eligible = [0, 2, 3, 5, 6]
    rounds = [generator(5, "schedule", number).permutation(eligible).tolist() for number in range(3)]
    assert rows.dtype == np.int64
    assert rows.tolist() == [row for round_ in rounds for row in round_][:12]
    assert drawn(lengths, [0] * 7).tolist() == rounds[0]
    assert lines == []


def test_weights_give_exact_counts():
    """Weights 3 : 1 : 1 of 101 samples are 60.6, 20.2, 20.2: by largest remainder 61, 20, 20."""
    lengths, of = [20] * 30, [0] * 5 + [1] * 20 + [2] * 5
    rows = drawn(lengths, of, weights=(3.0, 1.0, 1.0), samples=101)
    assert Counter(of[row] for row in rows) == {0: 61, 1: 20, 2: 20}
    times = Counter(rows.tolist())
    # Rounds: the five documents of source 0 come 12 or 13 times, each one of source 1 once, of source 2 four times.
    assert sorted(times[row] for row in range(5)) == [12, 12, 12, 12, 13]
    assert [times[row] for row in range(5, 30)] == [1] * 20 + [4] * 5
    # Mixed: not one source behind the other.
    assert len({of[row] for row in rows[:15]}) == 3
    assert sorted(rows[:61].tolist()) != sorted(row for row in rows.tolist() if of[row] == 0)


def test_equal_remainders_go_to_the_first_source():
    rows = drawn([20] * 9, [0] * 3 + [1] * 3 + [2] * 3, weights=(1.0, 1.0, 1.0), samples=4)
    assert Counter(row // 3 for row in rows.tolist()) == {0: 2, 1: 1, 2: 1}


def test_up_sampling_keeps_each_sources_share_of_all_tokens():
    """600 tokens, half of them in documents that are too short, and 200: 3 to 1, and 80 % from long documents."""
    lengths = [*[5] * 60, 100, 50, 50, 50, 50, *[30] * 5, 50]
    of = [0] * 65 + [1] * 6
    lines = []
    rows = drawn(lengths, of, longer_than=45, share=0.8, samples=200, log=lines.append).tolist()
    assert Counter(of[row] for row in rows) == {0: 150, 1: 50}
    assert sum(lengths[row] > 45 for row in rows if of[row] == 1) == 40
    # Source 0 has long documents only.
    assert {row for row in rows if of[row] == 0} == set(range(60, 65))
    assert sum("warning" in line for line in lines) == 1
    assert "source 0-text can't be up-sampled: all of its 5 documents are longer than 45" in lines[0]
    assert lines[-1] == "mixture: source 1-text: 40 samples of 1 documents longer than 45 tokens, 10 of 5 others"


def test_up_sampling_without_a_long_document():
    lines = []
    rows = drawn([20, 30, 9], [0, 0, 0], longer_than=30, samples=10, log=lines.append)
    assert Counter(rows.tolist()) == {0: 5, 1: 5}
    assert "none of its 2 documents are longer than 30" in lines[0]


@pytest.mark.parametrize(("share", "long"), [(0.0, 0), (1.0, 12), (0.5, 6)])
def test_shares_at_the_ends(share, long):
    rows = drawn([20, 30, 20], [0, 0, 0], longer_than=25, share=share, samples=12)
    assert Counter(rows.tolist())[1] == long


def test_a_number_of_samples_that_is_not_given():
    rows = drawn([20, 30, 9, 20, 20], [0, 0, 0, 1, 1], weights=(3.0, 1.0))
    assert len(rows) == 4
    assert Counter(row >= 3 for row in rows.tolist()) == {False: 3, True: 1}


def test_a_weight_without_documents():
    with pytest.raises(
        IndexingError, match=r"corpus\.sources\.1 has weight 2 and no document .* 10 tokens \(its longest has 9\)"
    ):
        drawn([20, 9, 8], [0, 1, 1], weights=(1.0, 2.0))
    with pytest.raises(IndexingError, match=r"corpus\.sources\.1 has weight 0\.5 .*\(it has no train document\)"):
        drawn([20, 20], [0, 2], weights=(1.0, 0.5, 1.0))
    with pytest.raises(IndexingError, match=r"source 2-text of the tokens has no weight: corpus.sources has 2"):
        drawn([20, 20], [0, 2], weights=(1.0, 0.5))


def test_a_source_without_long_enough_documents_leaves_its_share_to_the_others():
    lines = []
    rows = drawn([20, 40, 9, 9], [0, 1, 2, 2], longer_than=30, samples=9, log=lines.append)
    assert Counter(rows.tolist()) == {0: 3, 1: 6}
    assert (
        "warning: source 2-text gives no sample, and the others have its share: its longest document has 9" in lines[0]
    )


def test_no_document_is_long_enough():
    for lengths, longest in (([9, 3], 9), ([], 0)):
        with pytest.raises(IndexingError, match=f"none of {len(lengths)} documents .*train_length 10 .*has {longest}"):
            drawn(lengths, [0] * len(lengths), weights=(1.0,))


documents = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=40)


@settings(max_examples=200)
@given(documents, st.booleans(), st.none() | st.integers(1, 60), st.floats(0, 1), st.integers(1, 150), st.data())
def test_counts_and_rounds(documents, weighted, longer_than, share, samples, data):
    lengths, of = [n for n, _ in documents], [source for _, source in documents]
    able = {source for n, source in documents if n >= TRAIN}
    assume(able and (weighted or longer_than is not None))
    weights = None
    if weighted:
        assume(able == set(range(max(of) + 1)))
        weights = tuple(data.draw(st.lists(st.floats(0.01, 100), min_size=len(able), max_size=len(able))))
    rows = drawn(lengths, of, weights, longer_than, share, samples).tolist()
    assert len(rows) == samples
    assert all(lengths[row] >= TRAIN for row in rows)
    part = {s: Decimal(weights[s]) if weights else sum(n for n, source in documents if source == s) for s in able}
    for source in able:
        count = sum(of[row] == source for row in rows)
        assert abs(count - Decimal(samples) * part[source] / sum(part.values())) < 1
        own = [row for row in range(len(of)) if of[row] == source and lengths[row] >= TRAIN]
        long = [row for row in own if longer_than is not None and lengths[row] > longer_than]
        short = [row for row in own if row not in long]
        of_long = sum(row in long for row in rows)
        if long and short:
            assert abs(of_long - count * share) < 1
        times = Counter(rows)
        for group in filter(None, (long, short)):
            assert max(times[row] for row in group) - min(times[row] for row in group) <= 1
    assert rows == drawn(lengths, of, weights, longer_than, share, samples).tolist()


@settings(max_examples=200)
@given(st.integers(0, 1000), st.lists(st.fractions(0, 50), min_size=1, max_size=8))
def test_apportion(total, shares):
    assume(sum(shares) > 0)
    counts = apportion(total, shares)
    assert sum(counts) == total
    quotas = [total * share / sum(shares) for share in shares]
    assert all(abs(count - quota) < 1 for count, quota in zip(counts, quotas, strict=True))
    up = [quota % 1 for count, quota in zip(counts, quotas, strict=True) if count > quota]
    down = [quota % 1 for count, quota in zip(counts, quotas, strict=True) if count < quota]
    assert not up or not down or min(up) >= max(down)


def test_sources_are_read_from_all_files(tmp_path):
    labels = [f"{i % 12}-{'jsonl' if i % 12 == 10 else 'text'}" for i in range(30) if i % 12 in (2, 10, 11)]
    with TokenWriter(tmp_path, "train", tokens_per_shard=40, tokens_per_batch=20) as writer:
        for number, label in enumerate(labels):
            writer.append(f"{number:064x}", label, np.arange(10, dtype=np.int32))
    assert len(list(tmp_path.iterdir())) > 1
    read = Sources.read(TokenShards(tmp_path, "train"))
    assert read.labels == ("2-text", "10-jsonl", "11-text")  # by number, not as text
    assert [read.labels[n] for n in read.numbers] == labels
    TokenWriter(tmp_path / "empty", "train").close()
    empty = Sources.read(TokenShards(tmp_path / "empty", "train"))
    assert (empty.labels, empty.numbers.size) == ((), 0)


def test_a_label_without_a_number():
    with pytest.raises(IndexingError, match=re.escape("source 'wikipedia'")):
        source_number("wikipedia")


def test_the_mixture_of_a_recipe():
    plain = CorpusSection(sources=(CorpusSourceSection(path="a"), CorpusSourceSection(path="b")))
    assert Mixture.of(plain) == Mixture(None, None)
    weighted = (CorpusSourceSection(path="a", weight=2), CorpusSourceSection(path="b", weight=0.5))
    upsampling = UpsamplingSection(longer_than=100)
    assert Mixture.of(CorpusSection(sources=weighted, upsampling=upsampling)) == Mixture((2.0, 0.5), upsampling)
