"""Stages `evaluate`, `report`, and `measure`, which is no part of a recipe's run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longrecipe_core.artifacts import ArtifactRef, fingerprint, lineage
from tasks.gpu_slots import gpu_slots
from tasks.progress import counted_progress
from tasks.run import Run, StageOutcome, Work, settle
from tasks.stage_task import stage_task

if TYPE_CHECKING:
    from longrecipe_core.evaluation.job import EvaluatedModel

MERGED, MEASURED = "stage 2, merged", "model"
"""What stage `evaluate` calls the merged model in its rows, and what stage `measure` calls its only one."""


@stage_task("evaluate")
def evaluate(
    run: Run,
    base: ArtifactRef,
    tokenize: ArtifactRef,
    extend: ArtifactRef,
    anneal: ArtifactRef,
    merge: ArtifactRef,
) -> StageOutcome:
    """Measure every model of the run on the validation documents."""
    inputs = {"base": base, "tokenize": tokenize, "extend": extend, "anneal": anneal, "merge": merge}
    return settle(run, "evaluate", inputs, _evaluate)


@stage_task("report")
def report(
    run: Run, evaluate: ArtifactRef, merge: ArtifactRef, index: ArtifactRef, score: ArtifactRef | None = None
) -> StageOutcome:
    """A page and a model card for people."""
    inputs = {"evaluate": evaluate, "merge": merge, "index": index} | ({"score": score} if score else {})
    return settle(run, "report", inputs, _report)


@stage_task("measure")
def measure(run: Run, model: ArtifactRef, tokenize: ArtifactRef) -> StageOutcome:
    """Measure any one checkpoint on the validation documents, as `evaluate` measures the run's own."""
    return settle(run, "measure", {"model": model, "tokenize": tokenize}, _measure)


def _evaluate(work: Work) -> dict[str, Any]:
    from longrecipe_core.evaluation.job import EvaluatedModel
    from longrecipe_core.evaluation.table import read_rows, summary

    recipe = work.run.recipe
    base = work.fetch("base")
    models = [EvaluatedModel(name="base", directory=base)]
    if recipe.rope.type != "none":
        models.append(EvaluatedModel(name="base, RoPE change only", directory=base, rope=recipe.rope))
    models += [
        EvaluatedModel(name="stage 0, extended", directory=work.fetch("extend")),
        EvaluatedModel(name="stage 1, annealed", directory=work.fetch("anneal")),
        EvaluatedModel(name=MERGED, directory=work.fetch("merge")),
    ]
    window = base_window(work)
    long_ppl = recipe.evaluation.long_ppl
    _launch(work, models, window, models[-1] if long_ppl and long_ppl.evaluator == "merged" else models[0])
    return {"window": window, "nll": summary(read_rows(work.output), window, recipe.context.target_length)}


def _measure(work: Work) -> dict[str, Any]:
    from longrecipe_core.evaluation.job import EvaluatedModel

    _launch(work, [EvaluatedModel(name=MEASURED, directory=work.fetch("model"))], work.run.recipe.context.window)
    return {}


def _launch(
    work: Work, models: "Sequence[EvaluatedModel]", window: int | None, evaluator: "EvaluatedModel | None" = None
) -> None:
    """Measure models in a process of its own; `window` is marked in the plot, `evaluator` finds LongPPL's key tokens.

    What is measured lies beside the output and survives a kill.
    """
    from longrecipe_core.evaluation.job import EvaluationJob
    from longrecipe_core.launching import launch_evaluation

    recipe = work.run.recipe
    job = EvaluationJob(
        models=tuple(models),
        evaluator=evaluator,
        tokens=work.fetch("tokenize"),
        evaluation=recipe.evaluation,
        window=window,
        target_length=recipe.context.target_length,
        seed=recipe.seed,
        trust_remote_code=bool(recipe.model and recipe.model.trust_remote_code),
        threads=recipe.launch.threads,
        loss_chunk=recipe.launch.loss_chunk,
        measurements=measurements_file(work),
        output=work.output,
    )
    path = work.output.parent / "job.json"
    path.write_text(job.model_dump_json(indent=1))
    with gpu_slots(work, 1), counted_progress(work) as log:
        launch_evaluation(path, log=log)


def measurements_file(work: Work) -> Path:
    """Of these inputs' content: measurements of a model that was made again since are not the new one's."""
    return work.output.parent / f"measurements-{fingerprint(work.contents())[:16]}.jsonl"


def _report(work: Work) -> dict[str, Any]:
    from longrecipe_core.evaluation.report import write_report

    manifest = work.store.manifest_of(work.inputs["evaluate"])
    selection: Any = work.store.manifest_of(work.inputs["index"]).metrics.get("selection")
    write_report(
        work.output,
        recipe=work.run.recipe,
        evaluation=work.fetch("evaluate"),
        model_uri=work.inputs["merge"].uri,
        nll=manifest.metrics["nll"],
        impact=work.fetch("score") if "score" in work.inputs else None,
        selection=selection,
        adopted=lineage(work.store, work.inputs["evaluate"]).adopted(),
    )
    return {}


def base_window(work: Work) -> int:
    """The base model's window: as the recipe says, else as its config does."""
    from longrecipe_core.modeling import load_config

    recipe = work.run.recipe
    if recipe.context.window is not None:
        return recipe.context.window
    trust = bool(recipe.model and recipe.model.trust_remote_code)
    return int(load_config(work.fetch("base"), trust).max_position_embeddings)
