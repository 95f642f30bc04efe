"""Which weights of base and annealed model are best? Merges and evaluations from one pair of checkpoints."""

import io
from functools import partial
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import Field

from flows.by_name import run_stages
from flows.markdown import image, plain, table
from flows.parameters import recipe_parameters, run_name
from flows.recorded import recorded
from flows.summary import RunSummary
from longrecipe_core.artifacts import ArtifactRef
from longrecipe_core.evaluation.sweep import MergeSweep
from tasks.evaluation import measure
from tasks.merge import merge
from tasks.names import artifact_key
from tasks.run import Run
from tasks.scores import swept

TABLE = "Mean NLL in nats per token: inside the base model's window (short), beyond it (long)"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)

Weight = Annotated[float, Field(ge=0, le=1)]


class SweepSummary(RunSummary):
    """What a sweep gives back: its stages, and what they come to."""

    sweep: MergeSweep

    def to_json(self) -> dict[str, object]:
        """As of a run; `model` is the one that is marked, and absent where none is."""
        result = super().to_json()
        result.pop("model", None)
        chosen = self.sweep.chosen
        return result if chosen is None else result | {"model": self.sweep.models[chosen].uri}


@flow(name="merge-sweep", flow_run_name=run_name)
@partial(recipe_parameters, leave_out={"start_from"})
def merge_sweep(run: Run, base_weights: Annotated[tuple[Weight, ...], Field(min_length=1)] = WEIGHTS) -> SweepSummary:
    """Merge and measure at several weights: what the base model keeps at short length against the gain at long length.

    The checkpoints that are merged must be in the store already. Weights 0 and 1 are the annealed and the base model
    as they are: nothing is merged, and the base model has its own RoPE.

    Args:
        base_weights: weights of the base model; the annealed model has the rest to 1
    """
    run = run.model_copy(update={"start_from": "merge"})
    with recorded(run, "merge-sweep") as summary:
        refs = run_stages(run, summary, "tokenize", "anneal")
        models = []
        for weight in sorted(set(base_weights)):
            weighted = with_base_weight(run, weight)
            model = merged(weighted, summary, refs["base"], refs["anneal"])
            measured = summary.add(measure(weighted, model, refs["tokenize"]))
            models.append(swept(weighted, refs["base"], weight, model, measured))
        sweep = MergeSweep.of(models)
        publish(run, sweep)
    return SweepSummary(outcomes=summary.outcomes, sweep=sweep)


def with_base_weight(run: Run, weight: float) -> Run:
    """The same run with other weights of the average; 0.9 goes with 0.1, not with 1 - 0.9 in binary."""
    weights = {"base_weight": weight, "trained_weight": round(1 - weight, 12)}
    section = run.recipe.merge.model_copy(update=weights)
    return run.model_copy(update={"recipe": run.recipe.model_copy(update={"merge": section})})


def merged(run: Run, summary: RunSummary, base: ArtifactRef, anneal: ArtifactRef) -> ArtifactRef:
    """The model of these weights; of weight 0 or 1, the other model itself.

    A merge takes its config from the annealed model: one that is all base would be the base with a RoPE that nothing
    in it was trained with.
    """
    section = run.recipe.merge
    if section.trained_weight == 0:
        return base
    if section.base_weight == 0:
        return anneal
    return summary.add(merge(run, base, anneal))


def publish(run: Run, sweep: MergeSweep) -> None:
    """Show it on the run's page: a table, and a card with the picture."""
    from longrecipe_core.evaluation.sweep_plot import plot_sweep  # matplotlib

    rows = [
        {"base_weight": model.base_weight}
        | model.scores.model_dump(exclude_none=True)
        | ({} if model.benchmarks is None else {"benchmarks": model.benchmarks})
        | {"mark": sweep.mark(place), "model": model.uri}
        for place, model in enumerate(sweep.models)
    ]
    create_table_artifact(rows, key=artifact_key(run.recipe, "merge-sweep"), description=TABLE)
    png = io.BytesIO()
    plot_sweep(sweep, run.recipe.name, png, dpi=90)
    head = (*sweep.columns()[:-1], "mark")
    text = "\n".join(
        [
            f"{plain(sweep.verdict)}\n",
            image(png.getvalue(), "loss beyond the window against loss inside it, by weight"),
            table(head, sweep.cells(), right=range(len(head) - 1)),
        ]
    )
    create_markdown_artifact(text, key=artifact_key(run.recipe, "merge-sweep-knee"), description=sweep.verdict)
