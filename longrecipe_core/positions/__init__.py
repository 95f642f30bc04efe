"""How position ids are spread over the target length: one small file per strategy (paper, section 4.2)."""

import functools
import inspect
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.errors import PositionError
from longrecipe_core.positions import cream, full, gather, longrecipe, longrecipe_fixed, pose, rpes

Strategy = Callable[..., npt.NDArray[np.int64]]

STRATEGIES: dict[str, Strategy] = {
    "full": full.positions,
    "rpes": rpes.positions,
    "pose": pose.positions,
    "longrecipe": longrecipe.positions,
    "longrecipe-fixed": longrecipe_fixed.positions,
    "gather": gather.positions,
    "cream": cream.positions,
}


def make_positions(
    strategy: str,
    segment_lengths: Sequence[int] | npt.NDArray[np.integer[Any]],
    target_length: int,
    rng: np.random.Generator,
    **options: Any,
) -> npt.NDArray[np.int64]:
    """Draw the position ids of one training sample.

    Args:
        strategy: A key of `STRATEGIES`.
        segment_lengths: Tokens in each segment, in order, each at least 1. Strategies that know no segments use
            the sum only.
        target_length: The new context window, in tokens; every position stays below it.
        rng: Where every draw comes from.
        **options: Of the strategy: `chunks` for pose, `right_point` for longrecipe-fixed, `sigma`, `head` and
            `relativity` for cream. Whole numbers but for `sigma` and `relativity`.

    Returns:
        int64 array `[sum(segment_lengths)]`, strictly increasing, in `0..target_length - 1`.

    Raises:
        PositionError: A ValueError; says which numbers clash.
    """
    if strategy not in STRATEGIES:
        raise PositionError(f"positions strategy {strategy!r} is unknown; allowed: {', '.join(STRATEGIES)}")
    draw = STRATEGIES[strategy]
    options = _checked_options(strategy, options)
    lengths = np.asarray(segment_lengths)
    if lengths.ndim != 1 or lengths.size == 0 or not np.issubdtype(lengths.dtype, np.integer):
        raise PositionError(f"segment_lengths must be a non-empty list of whole numbers, got {segment_lengths!r}")
    lengths = lengths.astype(np.int64)
    if lengths.min() < 1:
        raise PositionError(f"segment {int(lengths.argmin())} has length {int(lengths.min())}; allowed: 1 and above")
    target_length = _whole_number("target_length", target_length)
    tokens = int(lengths.sum())
    if tokens > target_length:
        raise PositionError(f"{tokens} tokens in {lengths.size} segments don't fit a target length of {target_length}")
    return draw(lengths, target_length, rng, **options)


def _checked_options(strategy: str, options: dict[str, Any]) -> dict[str, int | float]:
    allowed = _allowed_options(strategy)
    # A parameter that a strategy annotates as float takes any real number, every other one whole numbers only.
    checked: dict[str, int | float] = {}
    for name, value in options.items():
        if name not in allowed:
            raise PositionError(f"strategy {strategy} has no option {name!r}; allowed: {', '.join(allowed) or 'none'}")
        checked[name] = _real_number(name, value) if allowed[name].annotation is float else _whole_number(name, value)
    return checked


@functools.cache
def _allowed_options(strategy: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(STRATEGIES[strategy]).parameters
    return {name: of for name, of in parameters.items() if name not in ("lengths", "target_length", "rng")}


def _whole_number(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise PositionError(f"{name} {value!r} must be a whole number") from error


def _real_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise PositionError(f"{name} {value!r} must be a number")
    return float(value)


__all__ = ["STRATEGIES", "make_positions"]
