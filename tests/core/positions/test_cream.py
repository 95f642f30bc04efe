"""CREAM against its definition; the truncated Gaussian is scipy's here, and the ends are counted from the formula."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest, truncnorm

from longrecipe_core.errors import PositionError
from longrecipe_core.positions import make_positions
from longrecipe_core.positions.cream import truncated_normal


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


@settings(max_examples=400)
@given(
    st.integers(3, 200),
    st.integers(0, 3000),
    st.sampled_from([1e-9, 0.3, 3.0, 50.0, 1e9]),
    st.sampled_from([0, 0.5, 1]),
    st.integers(0, 2**32 - 1),
)
def test_head_middle_and_tail(tokens, room, sigma, relativity, seed):
    target = tokens + room
    positions = make_positions("cream", [tokens], target, rng(seed), sigma=sigma, relativity=relativity)
    assert positions.dtype == np.int64
    assert positions.shape == (tokens,)
    assert (np.diff(positions) > 0).all()
    third, short = tokens // 3, min(4 * target // tokens, tokens // 3)
    ends = {0: [short], 1: [third], 0.5: [short, third]}[relativity]
    assert any(
        positions[:h].tolist() == list(range(h))
        and positions[tokens - h :].tolist() == list(range(target - h, target))
        and (np.diff(positions[h : tokens - h]) == 1).all()
        for h in ends
    )


@settings(max_examples=200)
@given(st.integers(3, 100), st.integers(0, 500), st.data())
def test_a_head_of_ones_own(tokens, room, data):
    head = data.draw(st.integers(1, (tokens - 1) // 2))
    positions = make_positions("cream", [tokens], tokens + room, rng(1), head=head, relativity=0)
    assert positions[:head].tolist() == list(range(head))
    assert positions[tokens - head :].tolist() == list(range(tokens + room - head, tokens + room))
    assert (np.diff(positions[head : tokens - head]) == 1).all()


@pytest.mark.parametrize(("mean", "sigma", "least", "most"), [(9, 3, 2, 16), (4.3, 3, 2, 6.7), (5, 0.2, 2, 8)])
def test_truncated_normal_is_scipys(mean, sigma, least, most):
    generator = rng(2)
    drawn = [truncated_normal(mean, sigma, least, most, generator) for _ in range(5000)]
    oracle = truncnorm((least - mean) / sigma, (most - mean) / sigma, loc=mean, scale=sigma)
    assert kstest(drawn, oracle.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("tokens", "target", "relativity", "head", "sigma"),
    [(9, 30, 1, 3, 3.0), (9, 30, 0, 1, 3.0), (10, 64, 0, 2, 1.5), (12, 41, 1, 4, 0.7)],
)
def test_ends_of_the_middle_have_the_probabilities_of_the_formula(tokens, target, relativity, head, sigma):
    middle, factor = tokens - 2 * head, target / tokens
    gaussian = truncnorm((2 - 1 - factor) / sigma, (factor - 1) / sigma, loc=1 + factor, scale=sigma)
    expected = Counter()
    grid = 4_000
    for x in gaussian.ppf((np.arange(grid) + 0.5) / grid):
        least = math.floor(head + (middle - 1) * x / 2)
        most = math.floor(tokens * x / 2) - head - 1
        for last in range(least, most + 1):
            expected[last] += 1 / grid / (most - least + 1)
    draws, generator = 8_000, rng(3)
    options = {"relativity": relativity, "sigma": sigma, "head": head}
    seen = Counter(
        int(make_positions("cream", [tokens], target, generator, **options)[tokens - head - 1]) for _ in range(draws)
    )
    assert set(seen) <= set(expected)
    common = [last for last in sorted(expected) if expected[last] * draws > 5]
    rest = draws - sum(seen[last] for last in common), 1 - sum(expected[last] for last in common)
    observed = [*(seen[last] for last in common), rest[0]]
    probable = [*(expected[last] * draws for last in common), rest[1] * draws]
    if rest[1] * draws < 5:
        assert rest[0] < 25
        observed, probable = observed[:-1], [p * sum(observed[:-1]) / sum(probable[:-1]) for p in probable[:-1]]
    assert chisquare(observed, probable).pvalue > 1e-3


def test_both_variants_are_equally_likely():
    generator = rng(4)
    thirds = sum(
        int(make_positions("cream", [300], 900, generator)[-100] == 800) for _ in range(4000)
    )  # the short head has 12 tokens, so its tail ends far behind
    assert chisquare([thirds, 4000 - thirds]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (2, {}, "cream with 2 tokens: head, middle and tail take 3"),
        (9, {"sigma": 0}, r"sigma 0\.0: allowed above 0"),
        (9, {"sigma": math.inf}, "sigma inf"),
        (9, {"sigma": math.nan}, "sigma nan"),
        (9, {"relativity": 1.5}, r"relativity 1\.5: allowed 0\.\.1"),
        (9, {"head": 5}, r"head 5 and 9 tokens: allowed 1\.\.4"),
        (9, {"head": 0}, "head 0 and 9 tokens"),
        (9, {"head": 2.5}, r"head 2\.5 must be a whole number"),
    ],
)
def test_an_impossible_cream_names_the_numbers(tokens, options, message):
    with pytest.raises(PositionError, match=message):
        make_positions("cream", [tokens], 30, rng(), **options)
