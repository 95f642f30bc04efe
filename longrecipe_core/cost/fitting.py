"""Launch options under which a training fits a card."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from longrecipe_core.cost.gpus import A800
from longrecipe_core.cost.trainings import Cost, Training, cost, trainings
from longrecipe_core.recipe import Recipe

CARD = A800.memory
"""80 GB; such cards have 80 GiB, so 7 % are left for what an allocator can't use."""
MOST_GPUS = 64
MLP_TILE = 4096


def options_that_fit(recipe: Recipe, training: Training) -> tuple[dict[str, Any], Cost] | None:
    """Changes to `launch` under which a training of the recipe fits an 80 GB card, and what it then costs.

    Those with the fewest GPUs, not below the recipe's own; of these without DeepSpeed, which is an extra, where that is
    possible; of these the ones with the fewest hours. None where no such options are found.
    """
    for processes in _processes(recipe.launch.processes):
        found: list[tuple[bool, float, int, dict[str, Any], Cost]] = []
        for changes in _candidates(recipe, processes):
            tried = _with(recipe, changes)
            if tried is None:
                continue
            again = next(each for each in trainings(tried, training.shape) if each.stage == training.stage)
            # As many sequences as were counted: a recipe alone may not tell them.
            told = cost(replace(again, sequences=training.sequences))
            if told.gpu_bytes <= CARD:
                deepspeed = tried.launch.sharding == "zero3"
                found.append((deepspeed, told.hours[A800.name], len(changes), changes, told))
        if found:
            *_, changes, told = min(found, key=lambda each: each[:3])
            return changes, told
    return None


def _processes(given: int) -> Iterator[int]:
    """The recipe's own number of GPUs, then doubled."""
    number = given
    while number <= max(given, MOST_GPUS):
        yield number
        number *= 2


def _candidates(recipe: Recipe, processes: int) -> Iterator[dict[str, Any]]:
    """Changes to the recipe's `launch`; what is as it was is left out."""
    launch = recipe.launch
    layouts: list[dict[str, Any]] = [{}]
    if processes > launch.processes:
        layouts = [{"processes": processes}]
        if launch.parallel == "local":  # one sequence over all ranks works for any number of heads
            layouts.append({"processes": processes, "parallel": "ring"})
    elif processes > 1 and launch.parallel == "local":
        layouts.append({"parallel": "ring"})
    shardings: list[dict[str, Any]] = [
        {"sharding": "none", "cpu_offload": False},
        {"sharding": "fsdp2", "cpu_offload": False},
        {"sharding": "fsdp2", "cpu_offload": True},
        {"sharding": "zero3", "cpu_offload": True},
    ]
    for layout in layouts:
        for sharding in shardings:
            for checkpointing in ("none", "selective", "full", "offload"):
                for tile in (launch.mlp_tile, MLP_TILE):
                    wanted = layout | sharding | {"activation_checkpointing": checkpointing, "mlp_tile": tile}
                    yield {key: value for key, value in wanted.items() if value != getattr(launch, key)}


def _with(recipe: Recipe, changes: dict[str, Any]) -> Recipe | None:
    """The recipe under other launch options, or None where they don't go together."""
    tree = recipe.model_dump(mode="python")
    tree["launch"] = tree["launch"] | changes
    try:
        return Recipe.model_validate(tree)
    except ValidationError:
        return None
