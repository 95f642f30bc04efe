"""`longrecipe-fixed` and `gather`: the draw of `longrecipe` with another right point, and with another use."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from longrecipe_core.positions import make_positions


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


requests = st.tuples(
    st.lists(st.integers(1, 12), min_size=1, max_size=20), st.integers(0, 300), st.integers(0, 2**32 - 1)
)


@settings(max_examples=300)
@given(requests, st.data())
def test_a_fixed_right_point_ends_the_identity_and_leaves_the_rest(request_, data):
    lengths, room, seed = request_
    tokens, target = sum(lengths), sum(lengths) + room
    right_point = data.draw(st.integers(1, tokens))
    positions = make_positions("longrecipe-fixed", lengths, target, rng(seed), right_point=right_point)
    assert positions[:right_point].tolist() == list(range(right_point))
    # Right point 1 changes nothing, since segments begin at 0: these are the positions as drawn.
    drawn = make_positions("longrecipe-fixed", lengths, target, rng(seed), right_point=1)
    assert positions[right_point:].tolist() == drawn[right_point:].tolist()
    starts = set(np.cumsum(lengths[:-1]).tolist())
    assert {int(i) + 1 for i in np.flatnonzero(np.diff(drawn) != 1)} <= starts


def test_the_right_point_is_8000_when_not_given():
    positions = make_positions("longrecipe-fixed", [10] * 1000, 100_000, rng())
    assert positions[:8000].tolist() == list(range(8000))
    assert positions[8000] > 20_000  # after 800 of 1,000 segments, most of the skips are behind


@pytest.mark.parametrize("right_point", [1, 2])
def test_skips_under_a_fixed_right_point_are_uniform(right_point):
    """Two segments of two tokens and five positions to skip: the second starts at 2..7, each equally likely."""
    draws, generator = 12_000, rng(7)
    seen = Counter(
        int(make_positions("longrecipe-fixed", [2, 2], 9, generator, right_point=right_point)[2]) for _ in range(draws)
    )
    assert set(seen) == {2, 3, 4, 5, 6, 7}
    assert chisquare([seen[key] for key in sorted(seen)]).pvalue > 1e-3


@settings(max_examples=100)
@given(requests)
def test_gather_draws_the_positions_of_longrecipe(request_):
    lengths, room, seed = request_
    target = sum(lengths) + room
    gathered = make_positions("gather", lengths, target, rng(seed))
    assert gathered.tolist() == make_positions("longrecipe", lengths, target, rng(seed)).tolist()


def test_gather_against_the_reference_algorithm():
    """Its plain way, slots in a list of zeros: same possible draws, same frequencies.

    Three one-token segments over five positions, right point 1 or 2. The reference moves the smallest of three slots
    to 0; as documented, ours draws the two later slots uniformly.
    """
    expected = Counter()
    for slots in ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)):
        for right_point in (1, 2):
            drawn = [0, *slots]
            expected[tuple([*range(right_point), *drawn[right_point:]])] += 1
    draws, generator = 12_000, rng(8)
    seen = Counter(tuple(make_positions("gather", [1, 1, 1], 5, generator).tolist()) for _ in range(draws))
    assert set(seen) == set(expected)
    keys = sorted(expected)
    assert chisquare([seen[key] for key in keys], [expected[key] * draws / 12 for key in keys]).pvalue > 1e-3
