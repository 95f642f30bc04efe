"""Stage `score`: which tokens a long context changes."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from longrecipe_core.artifacts import ArtifactRef
from tasks.run import Run, StageOutcome, Work, settle


@task(name="score", cache_policy=NO_CACHE)
def score(run: Run, base: ArtifactRef, tokenize: ArtifactRef, extended: ArtifactRef | None = None) -> StageOutcome:
    """Impactful token analysis (paper, section 4.1): `extended` is the warmed-up or the given model, if any."""
    section = run.recipe.score
    assert section is not None
    inputs = {"base": base, "tokenize": tokenize}
    if extended is not None:
        inputs["warmup" if section.source == "warmup" else "score_model"] = extended
    return settle(run, "score", inputs, _score)


def _score(work: Work) -> dict[str, Any]:
    raise NotImplementedError
