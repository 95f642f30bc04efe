"""Stages that make tokens: `tokenize` and `replay`."""

from typing import Any

from longrecipe_core.artifacts import ArtifactRef
from tasks.fan_out import engine
from tasks.run import Run, StageOutcome, Work, settle
from tasks.stage_task import stage_task


@stage_task("tokenize")
def tokenize(run: Run, base: ArtifactRef, corpus: ArtifactRef) -> StageOutcome:
    """Long documents to token shards, split into train and validation."""
    return settle(run, "tokenize", {"base": base, "corpus": corpus}, _tokenize)


@stage_task("replay")
def replay(run: Run, base: ArtifactRef, replay_sources: ArtifactRef) -> StageOutcome:
    """Instruction data to rows packed to the train length."""
    return settle(run, "replay", {"base": base, "replay_sources": replay_sources}, _replay)


def _tokenize(work: Work) -> dict[str, Any]:
    from longrecipe_core.corpus import Filters, resolve_source, tokenize

    recipe = work.run.recipe
    return tokenize(
        [resolve_source(source) for source in recipe.corpus.sources],
        work.fetch("base"),
        work.output,
        validation_share=recipe.corpus.validation_share,
        filters=Filters.of(recipe.corpus),
        trust_remote_code=bool(recipe.model and recipe.model.trust_remote_code),
        progress=work.log,
        engine=engine(work),
    )


def _replay(work: Work) -> dict[str, Any]:
    from longrecipe_core.corpus import resolve_source, tokenize_replay

    recipe = work.run.recipe
    sources = tuple(resolve_source(source) for source in recipe.replay.sources)
    return tokenize_replay(
        recipe.replay.model_copy(update={"sources": sources}),
        work.fetch("base"),
        work.output,
        train_length=recipe.context.train_length,
        seed=recipe.seed,
        trust_remote_code=bool(recipe.model and recipe.model.trust_remote_code),
        progress=work.log,
        engine=engine(work),
    )
