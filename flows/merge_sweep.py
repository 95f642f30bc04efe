"""Which weights of base and annealed model are best? Merges and evaluations from one pair of checkpoints."""

from functools import partial
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.by_name import run_stages
from flows.parameters import recipe_parameters, run_name
from flows.recorded import recorded
from flows.summary import RunSummary
from tasks.evaluation import measure
from tasks.merge import merge
from tasks.names import artifact_key
from tasks.run import Run
from tasks.scores import measured_scores

TABLE = "Mean NLL in nats per token: inside the base model's window (short), beyond it (long)"

Weight = Annotated[float, Field(ge=0, le=1)]


@flow(name="merge-sweep", flow_run_name=run_name)
@partial(recipe_parameters, leave_out={"start_from"})
def merge_sweep(run: Run, base_weights: Annotated[list[Weight], Field(min_length=1)]) -> RunSummary:
    """Merge and measure at several weights: what the base model keeps at short length against the gain at long length.

    The checkpoints that are merged must be in the store already.

    Args:
        base_weights: weights of the base model; the annealed model has the rest to 1
    """
    run = run.model_copy(update={"start_from": "merge"})
    with recorded(run, "merge-sweep") as summary:
        refs = run_stages(run, summary, "tokenize", "anneal")
        rows = []
        for weight in base_weights:
            weighted = with_base_weight(run, weight)
            merged = summary.add(merge(weighted, refs["base"], refs["anneal"]))
            measured = summary.add(measure(weighted, merged, refs["tokenize"]))
            found = measured_scores(weighted, refs["base"], measured)
            rows.append({"base_weight": weight, **found.model_dump(exclude_none=True), "model": merged.uri})
        create_table_artifact(rows, key=artifact_key(run.recipe, "merge-sweep"), description=TABLE)
    return summary


def with_base_weight(run: Run, weight: float) -> Run:
    """The same run with other weights of the average."""
    weights = {"base_weight": weight, "trained_weight": 1 - weight}
    section = run.recipe.merge.model_copy(update=weights)
    return run.model_copy(update={"recipe": run.recipe.model_copy(update={"merge": section})})
