"""Learning rates."""

import math

from longrecipe_core.recipe import TrainingSection


def learning_rate(training: TrainingSection, step: int, steps: int) -> float:
    """The rate of optimizer step `step` of `steps`, counted from 0.

    Warm-up rises to the peak in step `warmup_steps`. `linear` and `cosine` then fall so that step `steps`, the first
    that is not taken, would have a rate of exactly zero (paper, section 4.3: the annealing rate decays to zero).
    """
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / (training.warmup_steps + 1)
    if training.schedule == "constant":
        return training.learning_rate
    left = 1 - (step - training.warmup_steps) / max(1, steps - training.warmup_steps)
    if training.schedule == "linear":
        return training.learning_rate * max(0.0, left)
    # 1 - cos is exactly 0 at left = 0, while 1 + cos(pi) need not be.
    return training.learning_rate * 0.5 * (1 - math.cos(math.pi * max(0.0, left)))


def total_steps(training: TrainingSection, samples: int) -> int:
    """Optimizer steps of the whole run: as given, else whole global batches in `epochs` passes, at least one."""
    return training.steps or max(1, samples * training.epochs // training.global_batch)
