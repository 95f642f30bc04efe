"""Stages of a recipe by their names, for flows that want only some of them."""

from collections.abc import Callable

from flows.summary import RunSummary
from longrecipe_core.artifacts import ArtifactRef
from longrecipe_core.recipe import Recipe
from tasks.corpus import replay, tokenize
from tasks.evaluation import evaluate, report
from tasks.index import index
from tasks.merge import merge
from tasks.outside import inputs
from tasks.run import Run, StageOutcome
from tasks.score import score
from tasks.stages import Stage, used_inputs, used_stages
from tasks.training import anneal, base, extend, warmup

TASKS: dict[str, Callable[..., StageOutcome]] = {
    task.name: task for task in (base, tokenize, warmup, score, index, extend, replay, anneal, merge, evaluate, report)
}


def run_stages(run: Run, summary: RunSummary, *names: str) -> dict[str, ArtifactRef]:
    """Run the stages `names` and those that they need, in order; returns these and what comes from outside."""
    refs = inputs(run)
    for stage in needed_stages(run.recipe, names):
        given = {name: refs[name] for name in used_inputs(run.recipe, stage)}
        refs[stage.name] = summary.add(TASKS[stage.name](run, **given))
    return refs


def needed_stages(recipe: Recipe, names: tuple[str, ...]) -> list[Stage]:
    """Stages `names` and all whose results they read, directly or not, in the recipe's order."""
    used, needed = used_stages(recipe), set(names)
    for stage in reversed(used):  # a stage stands after those that it reads
        if stage.name in needed:
            needed.update(used_inputs(recipe, stage))
    return [stage for stage in used if stage.name in needed]
