"""Scheduled retraining: look at the data, train where they have changed, promote what is not worse."""

from functools import partial

from prefect import flow

from flows.extend_context import run_recipe
from flows.parameters import recipe_parameters, run_name
from flows.recorded import recorded
from flows.summary import RunSummary
from longrecipe_core.artifacts.pointers import Pointer, read_pointer
from longrecipe_core.errors import RecipeError
from tasks.corpus import tokenize
from tasks.evaluation import measure
from tasks.promotion import (
    Candidate,
    Decision,
    Measured,
    corpus_of,
    nothing_new,
    present_model,
    promote,
    same_tokenizer,
    validation_tokens,
)
from tasks.run import Run, run_log


@flow(name="retrain", flow_run_name=run_name)
@partial(recipe_parameters, leave_out={"start_from", "adopt"})
def retrain(run: Run) -> RunSummary:
    """Run what depends on changed data or a changed recipe; promote the model unless it is worse than the present."""
    if "merge" not in (run.recipe.evaluation.stages or ("merge",)):
        raise RecipeError("evaluation.stages: without merge there is nothing to tell whether the new model is worse")
    unchanged = nothing_new(run)
    if unchanged:
        # Not recorded: on a schedule such runs are most, and would displace those that have made something.
        run_log()(unchanged)
        return RunSummary()
    with recorded(run, "retrain") as summary:
        run_recipe(run, summary)
        decide(run, candidate_of(summary))
    return summary


def decide(run: Run, candidate: Candidate) -> Decision:
    """Compare with the present model and move the pointer or not; again whenever another run was faster."""
    while True:
        present = read_pointer(run.open_store(), run.recipe.name)
        decision = promote(run, candidate, present, measure_present(run, present, candidate))
        if decision is not None:
            return decision


def measure_present(run: Run, present: Pointer | None, candidate: Candidate) -> Measured | None:
    """The present model on the candidate's validation documents, which are not always those of its own evaluation."""
    model = present_model(run, present)
    if model is None or model == candidate.model:
        return None
    store, tokens = run.open_store(), candidate.tokens
    if not same_tokenizer(store, model, candidate.model):
        # As of a base model that was trained anew: the same texts through the present model's own.
        tokens = tokenize(run, model, corpus_of(store, tokens)).ref
    return Measured(
        evaluation=measure(run, model, tokens).ref,
        nll_scale=validation_tokens(store, tokens) / validation_tokens(store, candidate.tokens),
    )


def candidate_of(summary: RunSummary) -> Candidate:
    """What a whole run has made."""
    refs = {outcome.stage: outcome.ref for outcome in summary.outcomes}
    return Candidate(
        model=refs["merge"],
        tokens=refs["tokenize"],
        evaluation=refs["evaluate"],
        report=refs["report"],
        fingerprints={stage: ref.fingerprint for stage, ref in refs.items()},
    )
