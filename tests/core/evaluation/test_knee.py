"""Where the knee is, against a search by brute force, and what must not move it."""

import math

import numpy as np
import pytest

from longrecipe_core.evaluation.knee import DIVERGED, find_knee

# By weight of the base 0, 0.25, 0.5, 0.75: the more of it, the better at short length and the worse at long.
SWEEP = [(2.60, 3.00), (2.52, 3.02), (2.48, 3.12), (2.45, 3.50)]


def dominated(point, others):
    return any(o != point and o[0] <= point[0] and o[1] <= point[1] for o in others)


def farthest_below_chord(points):
    """The place of the undominated point with the greatest distance from the chord, by vectors; None for none."""
    front = [p for p in points if not dominated(p, points)]
    a, b = np.array(min(front)), np.array(min(front, key=lambda p: p[::-1]))
    scale = np.abs(b - a)
    distances = {}
    for p in front:
        (ux, uy), (vx, vy) = (b - a) / scale, (np.array(p) - a) / scale
        # Cross product: positive left of the way from a to b, which falls to the right; below is to its right.
        distances[points.index(p)] = -(ux * vy - uy * vx) / math.hypot(ux, uy)
    best = max(distances, key=distances.get)
    return best if distances[best] > 1e-9 else None


@pytest.mark.parametrize("seed", range(60))
def test_knee_is_the_point_farthest_below_the_chord(seed):
    rng = np.random.default_rng(seed)
    points = [tuple(p) for p in rng.uniform(2, 2 + DIVERGED, size=(rng.integers(2, 9), 2)).tolist()]
    knee = find_knee(points)
    front = sorted(p for p in points if not dominated(p, points))
    assert [points[place] for place in knee.front] == front
    assert not knee.diverged
    if len(front) == 1:
        assert (knee.found, points[knee.place]) == ("no trade-off", front[0])
    else:
        assert knee.place == farthest_below_chord(points)
        assert knee.found == ("none" if knee.place is None else "knee")


def test_knee_of_a_sweep():
    # Shares given up: 1 + 0, 0.47 + 0.04, 0.2 + 0.24, 0 + 1.
    assert find_knee(SWEEP).place == 2
    assert find_knee(SWEEP).front == (3, 2, 1, 0)


@pytest.mark.parametrize(
    "bad",
    [
        (2.61, 3.6),  # dominated, and worse than all
        (2.53, 3.03),  # dominated by a little
        (2.44, 7.9),  # the base model beyond its window: best at short length
        (9.0, 2.9),
        (2.44, math.inf),
        (math.nan, 2.0),
        (2.30, 3.0 + 1.01 * DIVERGED),
    ],
)
def test_a_bad_model_moves_nothing(bad):
    for at in (0, 2, 4):
        knee = find_knee([*SWEEP[:at], bad, *SWEEP[at:]])
        assert knee.found == "knee"
        assert knee.place == (3 if at <= 2 else 2)
        assert len(knee.front) == 4


def test_what_has_diverged_is_told():
    assert find_knee([*SWEEP, (2.44, 7.9), (2.61, 3.6), (math.nan, 1.0)]).diverged == (4, 6)
    # One broken model that is best at long length makes no other diverged.
    assert find_knee([*SWEEP, (9.0, 0.5)]).diverged == (4,)
    assert find_knee([(math.nan, 1.0), (1.0, math.inf)]) == find_knee([(math.inf, 1.0), (math.nan, math.nan)])
    assert find_knee([(math.nan, 1.0)]).found == "none"


def test_one_that_is_best_in_both_leaves_no_trade_off():
    for place in range(3):
        points = [(2.5, 3.1), (2.6, 3.0), (2.7, 3.2)]
        points[place] = (2.4, 2.9)
        assert (find_knee(points).found, find_knee(points).place) == ("no trade-off", place)
    assert (find_knee([(2.0, 3.0)] * 3).found, find_knee([(2.0, 3.0)] * 3).place) == ("no trade-off", 0)


@pytest.mark.parametrize("between", [[], [(2.5, 3.5)], [(2.6, 3.6)], [(2.25, 3.75), (2.75, 3.25)]])
def test_a_front_that_is_straight_or_bulges_has_no_knee(between):
    knee = find_knee([(2.0, 4.0), *between, (3.0, 3.0)])
    assert (knee.found, knee.place) == ("none", None)


def test_units_do_not_matter():
    scaled = [(10 + short / 7, 5 + long / 3) for short, long in SWEEP]
    assert find_knee(scaled).place == find_knee(SWEEP).place
