"""Learning rates at the places that matter."""

import pytest

from longrecipe_core.recipe import TrainingSection
from longrecipe_core.training.schedule import learning_rate, total_steps


def rates(steps, **keys):
    training = TrainingSection(learning_rate=1.0, **keys)
    return [learning_rate(training, step, steps) for step in range(steps + 1)]


def test_linear_falls_evenly_to_exactly_zero():
    assert rates(4, schedule="linear") == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_warm_up_rises_evenly_to_the_peak():
    assert rates(6, schedule="constant", warmup_steps=3) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    assert rates(6, schedule="linear", warmup_steps=2) == pytest.approx([1 / 3, 2 / 3, 1.0, 0.75, 0.5, 0.25, 0.0])


def test_cosine_is_half_way_down_in_the_middle_and_ends_at_exactly_zero():
    found = rates(4, schedule="cosine")
    assert found == pytest.approx([1.0, 0.853553, 0.5, 0.146447, 0.0], abs=1e-6)
    assert found[-1] == 0.0


@pytest.mark.parametrize(
    ("samples", "keys", "expected"),
    [(10_000, {}, 104), (10_000, {"epochs": 2}, 208), (50, {}, 1), (10_000, {"steps": 7}, 7)],
)
def test_steps_of_the_paper_and_others(samples, keys, expected):
    assert total_steps(TrainingSection(learning_rate=1.0, global_batch=96, **keys), samples) == expected
