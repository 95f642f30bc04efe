"""What several trainings that differ in their seed come to: mean, standard error, differences seed by seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longrecipe_core.errors import EvaluationError

STUDENT_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""The 97.5 % quantile of Student's t for 1 to 30 degrees of freedom, which more seeds than that also take."""


@dataclass(frozen=True)
class Mean:
    """Over `count` seeds; the standard error is NaN for a single one."""

    value: float
    standard_error: float
    count: int

    @property
    def interval(self) -> float:
        """Half the width of the 95 % interval by Student's t, which few seeds make wide: 4.3 standard errors of three.

        NaN for a single seed.
        """
        if self.count < 2:
            return math.nan
        return STUDENT_T[min(self.count - 1, len(STUDENT_T)) - 1] * self.standard_error

    def direction(self) -> str:
        """`higher` or `lower` than zero where that is outside the 95 % interval, else `within noise`; `one seed`."""
        if self.count < 2:
            return "one seed"
        if abs(self.value) > self.interval:
            return "higher" if self.value > 0 else "lower"
        return "within noise"


def over_seeds(values: Sequence[float]) -> Mean:
    """Mean of one value per seed and its standard error, s / sqrt(n) with n - 1 in s.

    Raises:
        EvaluationError: There are none.
    """
    if not values:
        raise EvaluationError("a mean over seeds was asked for, and there is no training")
    array = np.asarray(values, dtype=np.float64)
    error = float(array.std(ddof=1) / math.sqrt(array.size)) if array.size > 1 else math.nan
    return Mean(float(array.mean()), error, array.size)


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> Mean:
    """Mean over seeds of value minus the reference's of the same seed; what a seed does to both cancels out.

    Raises:
        EvaluationError: The two don't have the same seeds.
    """
    if values.keys() != reference.keys():
        raise EvaluationError(
            f"differences seed by seed need the same seeds; got {sorted(values)} and {sorted(reference)}"
        )
    return over_seeds([value - reference[seed] for seed, value in values.items()])
