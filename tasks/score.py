"""Stage `score`: which tokens a long context changes."""

import json
from typing import Any

from longrecipe_core.artifacts import ArtifactRef
from tasks.evaluation import base_window
from tasks.gpu_slots import gpu_slots
from tasks.progress import counted_progress
from tasks.run import Run, StageOutcome, Work, settle
from tasks.stage_task import stage_task


@stage_task("score")
def score(
    run: Run,
    base: ArtifactRef,
    tokenize: ArtifactRef,
    warmup: ArtifactRef | None = None,
    score_model: ArtifactRef | None = None,
) -> StageOutcome:
    """Impactful token analysis (paper, section 4.1): the base model against the warmed-up or the given one, if any."""
    extended = {name: ref for name, ref in (("warmup", warmup), ("score_model", score_model)) if ref}
    return settle(run, "score", {"base": base, "tokenize": tokenize} | extended, _score)


def _score(work: Work) -> dict[str, Any]:
    from longrecipe_core.launching import launch_scoring
    from longrecipe_core.scoring.job import ScoringJob
    from longrecipe_core.scoring.sample import resolve_lengths
    from tasks.documents import check_documents

    check_documents(work)
    recipe, scratch = work.run.recipe, work.output.parent
    section = recipe.score
    assert section is not None
    window = base_window(work)
    length, short_length = resolve_lengths(section, window)
    base_trust = bool(recipe.model and recipe.model.trust_remote_code)
    extended = next((name for name in ("warmup", "score_model") if name in work.inputs), None)
    job = ScoringJob(
        base=work.fetch("base"),
        extended=work.fetch(extended) if extended else None,
        tokens=work.fetch("tokenize"),
        score=section,
        length=length,
        short_length=short_length,
        window=window,
        seed=recipe.seed,
        base_trust=base_trust,
        extended_trust=section.model.trust_remote_code if section.model else base_trust,
        launch=recipe.launch,
        output=work.output,
        metrics=scratch / "metrics.json",
    )
    (scratch / "job.json").write_text(job.model_dump_json(indent=1))
    with gpu_slots(work, len(set(recipe.launch.score_devices))), counted_progress(work) as log:
        launch_scoring(scratch / "job.json", log=log)
    metrics: dict[str, Any] = json.loads(job.metrics.read_text(encoding="utf-8"))
    return metrics
