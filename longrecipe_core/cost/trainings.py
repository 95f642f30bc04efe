"""The trainings of a recipe, and what each costs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from longrecipe_core.cost.flops import training_flops_per_token
from longrecipe_core.cost.gpus import GPUS
from longrecipe_core.cost.hours import training_seconds
from longrecipe_core.cost.memory import (
    CUDA_CONTEXT,
    checkpoint_bytes,
    gpu_memory,
    host_memory,
    loading_bytes,
    output_bytes,
)
from longrecipe_core.cost.paper import FITTED
from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import ModelShape
from longrecipe_core.recipe import Recipe, TrainingSection

ANNEALING_TOKENS = 100_000_000
"""Of the paper's replay data, 68 to 100 M: taken where the recipe's are not counted yet."""


@dataclass(frozen=True)
class Training:
    """One training stage: `sequences` of `setup.length` tokens."""

    stage: str
    shape: ModelShape
    setup: Setup
    sequences: int
    guessed: bool = False
    """`sequences` rests on a guess of how much data there is."""

    @property
    def tokens(self) -> int:
        """All that pass."""
        return self.sequences * self.setup.length


@dataclass(frozen=True)
class Cost:
    """Of one training stage; memory per GPU, in bytes."""

    training: Training
    flops: float
    gpu_bytes: float
    host_bytes: float
    checkpoint_bytes: float
    output_bytes: float
    hours: dict[str, float]
    """By the GPU's name."""


def trainings(recipe: Recipe, shape: ModelShape, samples: Mapping[str, int] | None = None) -> Iterator[Training]:
    """The training stages of a recipe, in order.

    Args:
        recipe: What is trained, how long and where.
        shape: Of the model whose window is extended.
        samples: Rows of `index` and `replay`, where they are made already.
    """
    counted = samples or {}
    context, score = recipe.context, recipe.score
    if recipe.base is not None:
        yield _training(recipe, shape, "base", recipe.base.training, recipe.base.window, None)
    if score is not None and score.warmup is not None:
        yield _training(recipe, shape, "warmup", score.warmup, context.target_length, None)
    index = counted.get("index", recipe.index.samples)
    yield _training(recipe, shape, "extend", recipe.extend, context.train_length, index)
    yield _training(recipe, shape, "anneal", recipe.anneal, context.train_length, counted.get("replay"))


def cost(training: Training) -> Cost:
    """What a training costs on each kind of GPU."""
    shape, setup = training.shape, training.setup
    return Cost(
        training=training,
        flops=training.tokens * training_flops_per_token(shape, setup),
        gpu_bytes=gpu_bytes(shape, setup),
        host_bytes=host_memory(shape, setup) + FITTED.process,
        checkpoint_bytes=checkpoint_bytes(shape, setup),
        output_bytes=output_bytes(shape),
        hours={gpu.name: training_seconds(shape, setup, gpu, FITTED.speed, training.sequences) / 3600 for gpu in GPUS},
    )


def gpu_bytes(shape: ModelShape, setup: Setup) -> float:
    """What one GPU must have: the larger of loading and training, and the context.

    For DeepSpeed training is with what the paper's runs held beside the tensors.
    """
    held = FITTED.held * shape.parameters if setup.sharding == "zero3" else 0.0
    return max(gpu_memory(shape, setup).total + held, loading_bytes(shape, setup)) + CUDA_CONTEXT


def _training(
    recipe: Recipe, shape: ModelShape, stage: str, section: TrainingSection, length: int, samples: int | None
) -> Training:
    guess = section.steps is None and samples is None
    rows = -(-ANNEALING_TOKENS // length) if samples is None else samples
    steps = section.steps or max(1, rows * section.epochs // section.global_batch)  # as training.schedule has it
    setup = Setup.of(recipe.launch, section, length)
    return Training(stage, shape, setup, steps * section.global_batch, guess)
