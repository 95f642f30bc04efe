"""Which of several models trades two losses best: the knee of their Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Losses = tuple[float, float]
"""Short and long: mean NLL in nats per token, less is better in both."""

DIVERGED = 1.0
"""Nats above the best of the others in that score: a perplexity e times as high. Nobody would take such a model."""


@dataclass(frozen=True)
class Knee:
    """What `find_knee` says; all numbers are places in the sequence that it was given.

    `found` is `knee` where `place` is the knee, `no trade-off` where `place` is best in both scores, and `none` where
    `place` is None: the front has no point below the line between its ends, so each step costs what it gains.
    """

    found: Literal["knee", "no trade-off", "none"]
    place: int | None
    front: tuple[int, ...]
    """From the best short score to the best long one."""
    diverged: tuple[int, ...] = ()


def find_knee(points: Sequence[Losses]) -> Knee:
    """The point of the Pareto front that is farthest below the line from its best-short to its best-long end.

    Both scores are brought to 0..1 between the two ends, as in Kneedle (Satopää et al. 2011, "Finding a 'Kneedle' in a
    Haystack", section III, with S = infinity and without its smoothing, since a sweep has few points). With `s` and `l`
    the share of either loss that is given up against the best, the knee has the least `s + l`, below 1.

    A dominated point can't be an end or the knee, and so moves nothing. Nor does a diverged one: that is not finite, or
    more than `DIVERGED` nats above the best in either score, although it may be the best in the other. A base model
    beyond its window often is; as an end of the line it would make all others look alike. Ties go to the earlier point.
    """
    left, diverged = _without_diverged(points)
    front = _front(points, left)
    if not front:
        return Knee("none", None, (), diverged)
    if len(front) == 1:
        return Knee("no trade-off", front[0], tuple(front), diverged)
    (short_least, long_most), (short_most, long_least) = points[front[0]], points[front[-1]]

    def given_up(place: int) -> float:
        short, long = points[place]
        return (short - short_least) / (short_most - short_least) + (long - long_least) / (long_most - long_least)

    best = min(front, key=lambda place: (given_up(place), place))
    # The ends themselves give up 1; rounding must not make a knee of a straight line.
    if given_up(best) > 1 - 1e-9:
        return Knee("none", None, tuple(front), diverged)
    return Knee("knee", best, tuple(front), diverged)


def _without_diverged(points: Sequence[Losses]) -> tuple[list[int], tuple[int, ...]]:
    """Places of points that stay, and of those that don't, the worst of which goes first: what is left decides."""
    left = [place for place, point in enumerate(points) if all(map(math.isfinite, point))]
    while left:
        least = [min(points[place][score] for place in left) for score in (0, 1)]
        excess = {place: max(points[place][score] - least[score] for score in (0, 1)) for place in left}
        worst = max(left, key=lambda place: excess[place])
        if excess[worst] <= DIVERGED:
            break
        left.remove(worst)
    return left, tuple(place for place in range(len(points)) if place not in left)


def _front(points: Sequence[Losses], places: Sequence[int]) -> list[int]:
    """Those that no other beats in one score without losing in the other, by rising short score; of equal ones, one."""
    front: list[int] = []
    for place in sorted(places, key=lambda place: (*points[place], place)):
        if not front or points[place][1] < points[front[-1]][1]:
            front.append(place)
    return front
