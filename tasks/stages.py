"""The stages: what each makes, what from, and the version of the code that makes it."""

from dataclasses import dataclass

from longrecipe_core.artifacts import ArtifactRef, fingerprint
from longrecipe_core.recipe import Recipe, stage_part


@dataclass(frozen=True)
class Stage:
    """One row of the method.

    `inputs` are earlier stages, or what comes from outside: `corpus`, `replay_sources` and `score_model`; those that a
    recipe does not use fall away. `version` is raised by hand when the code would give another result from the same
    inputs. `measure` is in no recipe's run: flows ask for it, with any checkpoint as its `model`.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    version: int = 1


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("base", "checkpoint", ("corpus",), version=2),
        Stage("tokenize", "tokens", ("base", "corpus"), version=2),
        Stage("warmup", "checkpoint", ("base", "tokenize")),
        Stage("score", "impact", ("base", "tokenize", "warmup", "score_model")),
        Stage("index", "index", ("base", "tokenize", "score"), version=2),
        Stage("extend", "checkpoint", ("base", "tokenize", "index")),
        Stage("replay", "tokens", ("base", "replay_sources")),
        Stage("anneal", "checkpoint", ("extend", "replay")),
        Stage("merge", "checkpoint", ("base", "anneal")),
        Stage("evaluate", "evaluation", ("base", "tokenize", "extend", "anneal", "merge")),
        Stage("report", "report", ("evaluate", "merge", "index", "score")),
        Stage("measure", "evaluation", ("model", "tokenize")),
    )
}


def used_stages(recipe: Recipe) -> list[Stage]:
    """The stages that this recipe has, in order."""
    return [stage for stage in STAGES.values() if stage.name not in _unused(recipe)]


def used_inputs(recipe: Recipe, stage: Stage) -> tuple[str, ...]:
    """The inputs that a stage of this recipe has; a pretrained `base` comes from outside."""
    unused = _unused(recipe) - {"base"}
    return tuple(name for name in stage.inputs if name not in unused)


def _unused(recipe: Recipe) -> set[str]:
    score = recipe.score
    used = {
        "measure": False,
        "base": recipe.base is not None,
        "score": score is not None,
        "warmup": score is not None and score.source == "warmup",
        "score_model": score is not None and score.source == "model",
    }
    return {name for name, present in used.items() if not present}


def stage_keys(recipe: Recipe, outside: dict[str, ArtifactRef]) -> dict[str, str]:
    """Fingerprints of all that the recipe's stages make of these outside inputs, in order; no store is asked."""
    refs, keys = dict(outside), {}
    for stage in used_stages(recipe):
        key = stage_key(recipe, stage, {name: refs[name] for name in used_inputs(recipe, stage)})
        keys[stage.name] = key
        refs[stage.name] = ArtifactRef(uri="", kind=stage.kind, fingerprint=key)
    return keys


def stage_key(recipe: Recipe, stage: Stage, inputs: dict[str, ArtifactRef]) -> str:
    """The fingerprint of a stage's result: its part of the recipe, its inputs' fingerprints, its version."""
    wanted = used_inputs(recipe, stage)
    if set(inputs) != set(wanted):
        raise ValueError(f"stage {stage.name} takes {sorted(wanted)}, was given {sorted(inputs)}")
    return fingerprint(
        {
            "stage": stage.name,
            "version": stage.version,
            "recipe": stage_part(recipe, stage.name),
            "inputs": {name: ref.fingerprint for name, ref in inputs.items()},
        }
    )
