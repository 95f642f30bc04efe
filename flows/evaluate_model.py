"""Any one model on a recipe's validation documents."""

from functools import partial

from prefect import flow

from flows.by_name import run_stages
from flows.parameters import recipe_parameters, run_name
from flows.recorded import recorded
from flows.summary import RunSummary
from tasks.evaluation import measure
from tasks.outside import checkpoint_reference
from tasks.run import Run, run_log
from tasks.scores import measured_scores


@flow(name="evaluate-model", flow_run_name=run_name)
@partial(recipe_parameters, leave_out={"start_from"})
def evaluate_model(run: Run, checkpoint: str) -> RunSummary:
    """Measure a model on the validation documents of a recipe, at its target length.

    The documents' tokens are those of the recipe's own base model, so the model must have the same tokenizer.

    Args:
        checkpoint: the model: a directory, fsspec URL, hub id or URI of a checkpoint artifact
    """
    with recorded(run, "evaluate-model") as summary:
        model = checkpoint_reference(run, checkpoint)
        refs = run_stages(run, summary, "tokenize")
        measured = summary.add(measure(run, model, refs["tokenize"]))
        run_log()(f"{checkpoint}: {measured_scores(run, refs['base'], measured)}")
    return summary
