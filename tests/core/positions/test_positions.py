"""Strategies against their definitions (paper, section 4.2); expectations are counted here, not taken from the code."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from longrecipe_core.errors import PositionError
from longrecipe_core.positions import STRATEGIES, make_positions
from longrecipe_core.positions.longrecipe import cumulative_skips


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


requests = st.tuples(
    st.lists(st.integers(1, 12), min_size=1, max_size=20), st.integers(0, 300), st.integers(0, 2**32 - 1)
)


def possible(strategy, tokens):
    """Options of a request that the strategy can meet, or None."""
    if tokens < {"pose": 2, "cream": 3}.get(strategy, 1):
        return None
    return {"right_point": (tokens + 2) // 3} if strategy == "longrecipe-fixed" else {}


@settings(max_examples=400)
@given(requests, st.sampled_from(sorted(STRATEGIES)))
def test_strictly_increasing_and_inside_the_target(request_, strategy):
    lengths, room, seed = request_
    target = sum(lengths) + room
    options = possible(strategy, sum(lengths))
    if options is None:
        return
    positions = make_positions(strategy, lengths, target, rng(seed), **options)
    assert positions.dtype == np.int64
    assert positions.shape == (sum(lengths),)
    assert (np.diff(positions) > 0).all()
    assert 0 <= positions[0] <= positions[-1] < target
    if strategy != "rpes":
        assert positions[0] == 0
    if strategy == "full":
        assert positions.tolist() == list(range(sum(lengths)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("lengths", [[3], [1, 1, 1], [7, 2, 40, 1], [1000]])
def test_without_room_every_strategy_is_the_identity(strategy, lengths):
    tokens = sum(lengths)
    for seed in range(5):
        positions = make_positions(strategy, lengths, tokens, rng(seed), **possible(strategy, tokens))
        assert positions.tolist() == list(range(tokens))


@settings(max_examples=300)
@given(requests)
def test_longrecipe_jumps_only_at_segments_and_at_the_right_point(request_):
    lengths, room, seed = request_
    tokens = sum(lengths)
    positions = make_positions("longrecipe", lengths, tokens + room, rng(seed))
    starts = set(itertools.accumulate(lengths[:-1]))
    jumps = {int(i) + 1 for i in np.flatnonzero(np.diff(positions) != 1)}
    # At most one jump stands inside a segment: at the right point, which ends an identity prefix.
    inside = jumps - starts
    assert len(inside) <= 1
    first_jump = min(jumps, default=tokens)
    assert positions[:first_jump].tolist() == list(range(first_jump))
    for point in inside:
        assert point == first_jump
        assert point <= (tokens + 1) // 2


def test_right_point_is_uniform():
    """One-token segments with plenty of room: the first jump is the right point unless skips happened to be zero."""
    tokens, target, draws = 20, 100_000, 20_000
    generator = rng(1)
    seen = Counter()
    for _ in range(draws):
        positions = make_positions("longrecipe", [1] * tokens, target, generator)
        seen[int(np.argmax(positions != np.arange(tokens)))] += 1
    observed = [seen[point] for point in range(1, 11)]
    assert sum(observed) > 0.99 * draws  # a skip of zero at the right point is rare with this much room
    assert chisquare(observed).pvalue > 1e-3


def test_skips_are_a_uniform_composition():
    """Three segments, five positions to skip: each of the 21 pairs 0 <= a <= b <= 5 is equally likely."""
    draws, generator = 42_000, rng(2)
    seen = Counter(tuple(cumulative_skips(3, 5, generator).tolist()) for _ in range(draws))
    expected = [(0, a, b) for a in range(6) for b in range(a, 6)]
    assert set(seen) == set(expected)
    assert chisquare([seen[key] for key in expected]).pvalue > 1e-3


def test_positions_after_the_right_point_are_the_drawn_ones():
    """With segments of 2 + 2 tokens the right point is 1 or 2, so tokens 2 and 3 always show the drawn skip."""
    draws, generator = 12_000, rng(3)
    seen = Counter(int(make_positions("longrecipe", [2, 2], 9, generator)[2]) for _ in range(draws))
    assert set(seen) == {2, 3, 4, 5, 6, 7}
    assert chisquare([seen[key] for key in sorted(seen)]).pvalue > 1e-3


@pytest.mark.parametrize("chunks", [2, 3, 5])
def test_pose_is_chunks_with_skips_that_never_fall(chunks):
    generator = rng(4)
    splits, skips = set(), set()
    for _ in range(500):
        positions = make_positions("pose", [30], 200, generator, chunks=chunks)
        shift = positions - np.arange(30)
        assert shift[0] == 0
        assert (np.diff(shift) >= 0).all()
        assert len(set(shift.tolist())) <= chunks
        splits.add(int(np.argmax(shift > 0)))
        skips.add(int(shift[-1]))
    assert len(splits) > 10
    assert len(skips) > 50
    assert max(skips) <= 170


@pytest.mark.parametrize(("tokens", "target", "chunks"), [(4, 7, 2), (4, 7, 3), (3, 6, 3)])
def test_pose_draws_have_the_probabilities_of_the_paper(tokens, target, chunks):
    """Every choice of cuts is equally likely, and each skip among those from the last one to T - n."""
    room = target - tokens
    expected = Counter()
    cuts = list(itertools.combinations(range(1, tokens), chunks - 1))
    for cut in cuts:
        for skips in itertools.combinations_with_replacement(range(room + 1), chunks - 1):
            shift = [0] * tokens
            probability = 1 / len(cuts)
            for before, (start, skip) in zip((0, *skips), zip(cut, skips, strict=True), strict=False):
                probability /= room - before + 1
                shift[start:] = [skip] * (tokens - start)
            expected[tuple(j + u for j, u in enumerate(shift))] += probability
    assert sum(expected.values()) == pytest.approx(1)
    draws, generator = 10_000, rng(6)
    seen = Counter(tuple(make_positions("pose", [tokens], target, generator, chunks=chunks)) for _ in range(draws))
    assert set(seen) == set(expected)
    keys = sorted(expected)
    assert chisquare([seen[key] for key in keys], [expected[key] * draws for key in keys]).pvalue > 1e-3


def test_rpes_mean_is_half_the_target():
    generator = rng(5)
    means = [make_positions("rpes", [40], 1000, generator).mean() for _ in range(2000)]
    # A position is uniform on 0..999; 80,000 of them: the mean's standard error is below 1.1.
    assert abs(np.mean(means) - 999 / 2) < 5


def test_same_generator_same_bytes():
    for strategy in STRATEGIES:
        options = possible(strategy, 15)
        first, second = (make_positions(strategy, [4, 5, 6], 80, rng(9), **options).tobytes() for _ in range(2))
        assert first == second


@pytest.mark.parametrize(
    ("strategy", "lengths", "target", "options", "message"),
    [
        ("longrecipe", [5, 6], 10, {}, "11 tokens in 2 segments don't fit a target length of 10"),
        ("rpes", [], 10, {}, "non-empty"),
        ("pose", [4, 0], 10, {}, "segment 1 has length 0"),
        ("pose", [1], 10, {}, "2 chunks of 1 tokens"),
        ("pose", [8], 10, {"chunks": 9}, "9 chunks of 8 tokens"),
        ("full", [8], 10, {"chunks": 2}, "no option 'chunks'; allowed: none"),
        ("skip", [8], 10, {}, "allowed: full, rpes, pose, longrecipe"),
        ("full", [1.5], 10, {}, "whole numbers"),
        ("full", [8], 10.5, {}, "target_length 10.5 must be a whole number"),
        ("pose", [8], 10, {"chunks": 2.0}, r"chunks 2\.0 must be a whole number"),
        ("cream", [8], 10, {"sigma": "3"}, "sigma '3' must be a number"),
        ("cream", [8], 10, {"relativity": True}, "relativity True must be a number"),
        ("longrecipe-fixed", [8], 10, {}, r"right_point 8000 and 8 tokens: allowed 1\.\.8"),
        ("longrecipe-fixed", [8], 10, {"right_point": 9}, r"right_point 9 and 8 tokens"),
        ("longrecipe-fixed", [8], 10, {"right_point": 0}, r"right_point 0 and 8 tokens"),
        ("gather", [8], 10, {"right_point": 3}, "no option 'right_point'; allowed: none"),
        ("gather", [5, 6], 10, {}, "11 tokens in 2 segments don't fit a target length of 10"),
    ],
)
def test_an_impossible_request_names_the_numbers(strategy, lengths, target, options, message):
    with pytest.raises(PositionError, match=message) as caught:
        make_positions(strategy, lengths, target, rng(), **options)
    assert isinstance(caught.value, ValueError)
