"""The stages: what each makes, what from, and the version of the code that makes it."""

from dataclasses import dataclass

from longrecipe_core.artifacts import ArtifactRef, fingerprint
from longrecipe_core.recipe import Recipe, stage_part


@dataclass(frozen=True)
class Stage:
    """One row of the method.

    `inputs` are earlier stages, or what comes from outside: `corpus` and `replay_sources`. `version` is raised by hand
    when the code would give another result from the same inputs.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    version: int = 1


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("base", "checkpoint", ("corpus",)),
        Stage("tokenize", "tokens", ("base", "corpus")),
        Stage("index", "index", ("base", "tokenize")),
        Stage("extend", "checkpoint", ("base", "tokenize", "index")),
        Stage("replay", "tokens", ("base", "replay_sources")),
        Stage("anneal", "checkpoint", ("extend", "replay")),
        Stage("merge", "checkpoint", ("base", "anneal")),
        Stage("evaluate", "evaluation", ("base", "tokenize", "extend", "anneal", "merge")),
        Stage("report", "report", ("evaluate", "merge")),
    )
}


def used_stages(recipe: Recipe) -> list[Stage]:
    """The stages that this recipe has, in order."""
    return [stage for stage in STAGES.values() if stage.name != "base" or recipe.base is not None]


def stage_key(recipe: Recipe, stage: Stage, inputs: dict[str, ArtifactRef]) -> str:
    """The fingerprint of a stage's result: its part of the recipe, its inputs' fingerprints, its version."""
    if set(inputs) != set(stage.inputs):
        raise ValueError(f"stage {stage.name} takes {sorted(stage.inputs)}, was given {sorted(inputs)}")
    return fingerprint(
        {
            "stage": stage.name,
            "version": stage.version,
            "recipe": stage_part(recipe, stage.name),
            "inputs": {name: ref.fingerprint for name, ref in inputs.items()},
        }
    )
