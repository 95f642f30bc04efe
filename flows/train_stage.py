"""Any one stage of a recipe, from results that are in the store."""

from functools import partial

from prefect import flow

from flows.by_name import run_stages
from flows.parameters import StageName, recipe_parameters, run_name
from flows.recorded import recorded
from flows.summary import RunSummary
from tasks.run import Run


@flow(name="train-stage", flow_run_name=run_name)
@partial(recipe_parameters, leave_out={"start_from"})
def train_stage(run: Run, stage: StageName) -> RunSummary:
    """Run one stage of a recipe and stop; what it reads must be in the store already.

    Args:
        stage: the stage to run; not every recipe has a base, warmup or score
    """
    run = run.model_copy(update={"start_from": stage})
    with recorded(run, "train-stage") as summary:
        run_stages(run, summary, stage)
    return summary
