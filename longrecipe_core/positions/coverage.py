"""Which positions and which relative distances a position strategy trains, counted exactly over drawn samples."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import PositionError
from longrecipe_core.positions import STRATEGIES, make_positions
from longrecipe_core.positions.options import strategy_options
from longrecipe_core.recipe import Recipe

SEGMENT_LENGTH = 88.0
"""Tokens in a segment, on average: the paper's mean contiguous run."""


@dataclass(frozen=True)
class Coverage:
    """What `samples` samples of one strategy train. A pair is two tokens of a sample; the later one sees the other."""

    strategy: str
    tokens: int
    """Trained tokens of a sample, `n`."""
    target_length: int
    """`T`."""
    samples: int
    runs: int
    """Stretches of consecutive positions, over all samples."""
    distance_counts: npt.NDArray[np.int64]
    """`[T]`: pairs at each distance, over all samples; entry 0 counts every token with itself."""
    positions_seen: npt.NDArray[np.bool_]
    """`[T]`: positions that stand in a sample."""

    @property
    def mean_run(self) -> float:
        """Mean length of a stretch of consecutive positions, in tokens."""
        return self.samples * self.tokens / self.runs

    @property
    def mean_distance(self) -> float:
        """Mean distance of two different tokens of a sample (paper, Figure 3)."""
        pairs = self.distance_counts[1:].astype(np.float64)
        return float(pairs @ np.arange(1, self.target_length) / pairs.sum()) if self.tokens > 1 else 0.0

    @property
    def distances_seen(self) -> float:
        """Share of the distances `1..T - 1` that some pair has."""
        return float((self.distance_counts[1:] > 0).mean())

    @property
    def seen_per_sample(self) -> float:
        """Share of the positions `0..T - 1` that stand in one sample."""
        return self.tokens / self.target_length

    @property
    def seen(self) -> float:
        """Share of the positions `0..T - 1` that stand in some sample."""
        return float(self.positions_seen.mean())


def recipe_coverages(
    recipe: Recipe, samples: int, segment_length: float = SEGMENT_LENGTH
) -> tuple[list[Coverage], list[str]]:
    """Every strategy at the lengths of a recipe, `full` at the target length; and why the left-out ones can't be.

    Draws follow from the recipe's seed. Options are those of the recipe's section `positions`.

    Raises:
        PositionError: No samples, or a segment length below 1.
    """
    if samples < 1:
        raise PositionError(f"coverage over {samples} samples: allowed 1 and above")
    _check_segment_length(segment_length)
    done, left_out = [], []
    for strategy in STRATEGIES:
        tokens = recipe.context.target_length if strategy == "full" else recipe.context.train_length
        options = strategy_options(recipe.positions, strategy)
        drawn = draw_samples(
            strategy,
            tokens,
            recipe.context.target_length,
            samples=1 if strategy == "full" else samples,
            seed=recipe.seed,
            segment_length=segment_length,
            **options,
        )
        try:
            done.append(measure_coverage(strategy, drawn, recipe.context.target_length))
        except PositionError as error:
            left_out.append(str(error))
    return done, left_out


def draw_samples(
    strategy: str,
    tokens: int,
    target_length: int,
    *,
    samples: int,
    seed: int,
    segment_length: float = SEGMENT_LENGTH,
    **options: Any,
) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of `samples` samples, int64 `[tokens]` each, over segments of geometrically drawn length.

    No corpus is read: a segment ends behind each token with probability `1 / segment_length`, and the last one where
    the sample does.

    Raises:
        PositionError: A segment length below 1, or what `make_positions` refuses.
    """
    _check_segment_length(segment_length)
    for sample in range(samples):
        rng = generator(seed, "coverage", strategy, sample)
        segments = geometric_segments(tokens, segment_length, rng)
        yield make_positions(strategy, segments, target_length, rng, **options)


def geometric_segments(tokens: int, mean: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Segment lengths that sum to `tokens`; each token but the last ends one with probability `1 / mean`."""
    ends = np.flatnonzero(rng.random(tokens - 1) < 1 / mean) + 1
    return np.diff(ends, prepend=0, append=tokens)


def _check_segment_length(mean: float) -> None:
    if not 1 <= mean < np.inf:
        raise PositionError(f"a mean segment length of {mean:g} tokens: allowed 1 and above")


def measure_coverage(strategy: str, drawn: Iterable[npt.NDArray[np.int64]], target_length: int) -> Coverage:
    """Count the distances of all pairs of tokens in the samples `drawn`, which must have equal lengths.

    The pairs at distance `d` are the autocorrelation at `d` of the 0/1 vector of occupied positions. It is computed by
    FFT, summed over samples before it is transformed back, and rounded: the counts are whole numbers, and exact.

    Raises:
        PositionError: No samples, or more than double precision can count.
    """
    # Twice the target length, so that distances don't wrap round; a power of two, which is fast.
    size = 1 << (2 * target_length - 1).bit_length()
    power = np.zeros(size // 2 + 1)
    seen = np.zeros(target_length, dtype=np.bool_)
    samples = tokens = runs = 0
    for positions in drawn:
        occupied = np.zeros(target_length)
        occupied[positions] = 1
        spectrum = np.fft.rfft(occupied, size)
        power += spectrum.real**2 + spectrum.imag**2
        seen[positions] = True
        runs += 1 + int((np.diff(positions) != 1).sum())
        tokens = positions.size
        samples += 1
    if samples == 0:
        raise PositionError(f"coverage of {strategy} over 0 samples: allowed 1 and above")
    correlation = np.fft.irfft(power, size)[:target_length]
    counts = np.rint(correlation).astype(np.int64)
    pairs = samples * (tokens * (tokens + 1) // 2)
    if int(counts.sum()) != pairs or counts.min() < 0 or np.abs(correlation - counts).max() > 0.25:
        raise PositionError(
            f"coverage of {strategy}: {samples} samples of {tokens} tokens are too many to count exactly; take fewer"
        )
    return Coverage(strategy, tokens, target_length, samples, runs, counts, seen)
