"""The stages: what each makes, what from, and the version of the code that makes it."""

from dataclasses import dataclass

from longrecipe_core.artifacts import ArtifactRef, fingerprint
from longrecipe_core.recipe import Recipe, stage_part
from tasks.other_models import other_models


@dataclass(frozen=True)
class Stage:
    """One row of the method.

    `inputs` are earlier stages, or what comes from outside: `corpus`, `replay_sources`, `score_model` and
    `benchmarks`; those that a recipe does not use fall away. `version` is raised by hand when the code would give
    another result from the same inputs. Those of `OF_NO_RECIPE` are in no recipe's run: flows ask for them, with
    any checkpoint as their `model`.
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
        Stage("evaluate", "evaluation", ("base", "tokenize", "extend", "anneal", "merge", "benchmarks")),
        Stage("report", "report", ("evaluate", "merge", "index", "score"), version=2),
        Stage("measure", "evaluation", ("model", "tokenize", "benchmarks")),
        Stage("measure_rope", "evaluation", ("model", "tokenize", "benchmarks")),
    )
}

OF_NO_RECIPE = ("measure", "measure_rope")


def used_stages(recipe: Recipe) -> list[Stage]:
    """The stages that this recipe has, in order."""
    return [stage for stage in STAGES.values() if stage.name not in _unused(recipe)]


def used_inputs(recipe: Recipe, stage: Stage) -> tuple[str, ...]:
    """The inputs that a stage of this recipe has; a pretrained `base` comes from outside, as do other models."""
    unused = _unused(recipe) - {"base"}
    inputs = (*stage.inputs, *other_models(recipe)) if stage.name == "evaluate" else stage.inputs
    return tuple(name for name in inputs if name not in unused)


def _unused(recipe: Recipe) -> set[str]:
    score = recipe.score
    used = {
        **dict.fromkeys(OF_NO_RECIPE, False),
        "base": recipe.base is not None,
        "score": score is not None,
        "warmup": score is not None and score.source == "warmup",
        "score_model": score is not None and score.source == "model",
        "benchmarks": bool(recipe.evaluation.benchmarks and recipe.evaluation.benchmarks.include_path),
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
