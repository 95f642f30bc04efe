"""Stages `evaluate`, `report`, and `measure`, which is no part of a recipe's run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longrecipe_core.artifacts import ArtifactRef, Lineage, fingerprint, lineage
from longrecipe_core.artifacts.one_file import read_file
from longrecipe_core.recipe import OWN_MODELS, EvaluatedStage, Recipe
from tasks.gpu_slots import gpu_slots
from tasks.other_models import check_measured, check_vocabularies, other_models
from tasks.progress import counted_progress
from tasks.run import Run, StageOutcome, Work, benchmarks_reference, settle
from tasks.stage_task import stage_task

if TYPE_CHECKING:
    from longrecipe_core.evaluation.job import EvaluatedModel
    from longrecipe_core.recipe import RopeSection

BASE, ROPE_ONLY, MERGED, MEASURED = *(OWN_MODELS[stage] for stage in ("base", "rope", "merge")), "model"
"""What stage `evaluate` calls models in its rows, and what stage `measure` calls its only one."""


@stage_task("evaluate")
def evaluate(
    run: Run,
    base: ArtifactRef,
    tokenize: ArtifactRef,
    extend: ArtifactRef,
    anneal: ArtifactRef,
    merge: ArtifactRef,
    **others: ArtifactRef,
) -> StageOutcome:
    """Measure the models of the run, and others, on the validation documents."""
    inputs = {"base": base, "tokenize": tokenize, "extend": extend, "anneal": anneal, "merge": merge} | others
    inputs |= benchmarks_reference(run.recipe)
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
    inputs = {"model": model, "tokenize": tokenize} | benchmarks_reference(run.recipe)
    return settle(run, "measure", inputs, _measure)


@stage_task("measure_rope")
def measure_rope(run: Run, model: ArtifactRef, tokenize: ArtifactRef) -> StageOutcome:
    """As `measure`, with the recipe's RoPE change baked in and no training: what all of that must beat."""
    inputs = {"model": model, "tokenize": tokenize} | benchmarks_reference(run.recipe)
    return settle(run, "measure_rope", inputs, _measure_rope)


def _evaluate(work: Work) -> dict[str, Any]:
    from longrecipe_core.evaluation.job import EvaluatedModel
    from longrecipe_core.evaluation.table import read_rows, summary

    recipe = work.run.recipe
    others = {name: work.inputs[name] for name in other_models(recipe)}
    check_vocabularies(work, others)

    def own(stage: EvaluatedStage) -> EvaluatedModel:
        rope = recipe.rope if stage == "rope" else None
        return EvaluatedModel(name=OWN_MODELS[stage], directory=work.fetch("base" if rope else stage), rope=rope)

    models = [own(stage) for stage in _own_stages(recipe)]
    for model in recipe.evaluation.models or ():
        of_base = model.path is None
        directory = work.fetch("base" if of_base else f"evaluation.models.{model.name}")
        models.append(EvaluatedModel(name=model.name, directory=directory, rope=model.rope, own_window=not of_base))
    window = base_window(work)
    long_ppl = recipe.evaluation.long_ppl
    _launch(work, models, window, own("merge" if long_ppl and long_ppl.evaluator == "merged" else "base"))
    return {"window": window, "nll": summary(read_rows(work.output), window, recipe.context.target_length)}


def _own_stages(recipe: Recipe) -> list[EvaluatedStage]:
    """Those whose models are measured, in their order."""
    every = [stage for stage in OWN_MODELS if stage != "rope" or recipe.rope.type != "none"]
    return [stage for stage in every if stage in (recipe.evaluation.stages or every)]


def _measure(work: Work, rope: "RopeSection | None" = None) -> dict[str, Any]:
    from longrecipe_core.evaluation.job import EvaluatedModel

    check_measured(work)
    model = EvaluatedModel(name=MEASURED, directory=work.fetch("model"), rope=rope)
    _launch(work, [model], work.run.recipe.context.window)
    return {}


def _measure_rope(work: Work) -> dict[str, Any]:
    return _measure(work, work.run.recipe.rope)


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
    from longrecipe_core.evaluation.report import Found, Made, write_report
    from longrecipe_core.evaluation.report.card import license_of
    from longrecipe_core.evaluation.report.stages import TRAININGS, all_above
    from longrecipe_core.training.metrics_file import parse_metrics

    store, recipe, merged = work.store, work.run.recipe, work.inputs["merge"]

    def content(of: ArtifactRef, name: str) -> bytes | None:
        return read_file(store, of, name)

    def made(origin: Lineage) -> Made:
        manifest = origin.manifest
        if manifest is None or manifest.stage not in TRAININGS or manifest.adopted:
            return Made(origin)
        return Made(origin, parse_metrics((content(store.ref(manifest), "about/metrics.jsonl") or b"").decode()))

    metrics: Any = store.manifest_of(work.inputs["evaluate"]).metrics
    selection: Any = store.manifest_of(work.inputs["index"]).metrics.get("selection")
    found = Found(
        evaluation=work.fetch("evaluate"),
        index=work.fetch("index"),
        model_uri=merged.uri,
        model=MERGED,
        reference=ROPE_ONLY if "rope" in _own_stages(recipe) else BASE,
        nll=metrics["nll"],
        window=metrics.get("window"),
        impact=work.fetch("score") if "score" in work.inputs else None,
        selection=selection or {},
        config=json.loads(content(merged, "config.json") or b"{}"),
        stages=[made(one) for one in all_above([lineage(store, ref) for ref in work.inputs.values()])],
        license_id=license_of(_base_card(recipe)),
    )
    write_report(work.output, recipe, found)
    return {}


def _base_card(recipe: Recipe) -> bytes | None:
    """The model card of a base model that lies in a local directory, where it has one."""
    card = Path(recipe.model.path).expanduser() / "README.md" if recipe.model else None
    return card.read_bytes() if card is not None and card.is_file() else None


def base_window(work: Work) -> int:
    """The base model's window: as the recipe says, else as its config does."""
    from longrecipe_core.modeling import load_config

    recipe = work.run.recipe
    if recipe.context.window is not None:
        return recipe.context.window
    trust = bool(recipe.model and recipe.model.trust_remote_code)
    return int(load_config(work.fetch("base"), trust).max_position_embeddings)
