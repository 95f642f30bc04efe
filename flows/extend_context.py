"""The method, start to end: a pretrained model and text in, the same model with a longer window out."""

from prefect import flow

from flows.parameters import recipe_parameters, run_name
from flows.recorded import recorded
from flows.summary import RunSummary
from tasks.corpus import replay, tokenize
from tasks.evaluation import evaluate, report
from tasks.index import index
from tasks.merge import merge
from tasks.other_models import other_models
from tasks.outside import inputs
from tasks.run import Run
from tasks.score import score
from tasks.training import anneal, base, extend, warmup


@flow(name="extend-context", flow_run_name=run_name)
@recipe_parameters
def extend_context(run: Run) -> RunSummary:
    """Extend a model's context window (arXiv 2409.00509); every stage is skipped whose result is in the store."""
    with recorded(run, "extend-context") as summary:
        run_recipe(run, summary)
    return summary


def run_recipe(run: Run, summary: RunSummary) -> None:
    """All stages of the recipe, in order."""
    recipe = run.recipe

    # What comes from outside, known by content: documents, replay data, a pretrained model.
    outside = inputs(run)
    start = outside["base"] if recipe.model else summary.add(base(run, outside["corpus"]))

    # Section 4.1: which tokens a long context changes, where sentences are selected by them.
    tokens = summary.add(tokenize(run, start, outside["corpus"]))
    scores = None
    if recipe.score:
        warmed = summary.add(warmup(run, start, tokens)) if recipe.score.warmup else None
        scores = summary.add(score(run, start, tokens, warmed, outside.get("score_model")))

    # Section 4.1 and 4.2: sentences worth training on, at positions spread over the target length.
    samples = summary.add(index(run, start, tokens, scores))

    # Section 4.3, stage 0: context extension. Stage 1: annealing on replay data. Stage 2: merge with the base model.
    extended = summary.add(extend(run, start, tokens, samples))
    packed = summary.add(replay(run, start, outside["replay_sources"]))
    annealed = summary.add(anneal(run, extended, packed))
    merged = summary.add(merge(run, start, annealed))

    # Does it work?
    others = {name: outside[name] for name in other_models(recipe)}
    measured = summary.add(evaluate(run, start, tokens, extended, annealed, merged, **others))
    summary.add(report(run, measured, merged, samples, scores))
