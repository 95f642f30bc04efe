"""The data of a recipe, and no training of it: token shards, the index of samples, replay rows."""

from prefect import flow

from flows.parameters import recipe_parameters, run_name
from flows.recorded import recorded
from flows.summary import RunSummary
from tasks.corpus import replay, tokenize
from tasks.index import index
from tasks.outside import inputs
from tasks.run import Run
from tasks.score import score
from tasks.training import base, warmup


@flow(name="prepare-data", flow_run_name=run_name)
@recipe_parameters
def prepare_data(run: Run) -> RunSummary:
    """Prepare the data of a recipe: on machines without GPUs, before the training has any.

    Where the recipe trains its base model, or scores tokens, that is done too, since the data depend on it.
    """
    with recorded(run, "prepare-data") as summary:
        recipe = run.recipe
        outside = inputs(run)
        start = outside["base"] if recipe.model else summary.add(base(run, outside["corpus"]))
        tokens = summary.add(tokenize(run, start, outside["corpus"]))
        scores = None
        if recipe.score:
            warmed = summary.add(warmup(run, start, tokens)) if recipe.score.warmup else None
            scores = summary.add(score(run, start, tokens, warmed, outside.get("score_model")))
        summary.add(index(run, start, tokens, scores))
        summary.add(replay(run, start, outside["replay_sources"]))
    return summary
