"""Stage `index`: which tokens make each sample, and at which positions."""

from typing import Any

from longrecipe_core.artifacts import ArtifactRef
from tasks.fan_out import engine
from tasks.run import Run, StageOutcome, Work, settle
from tasks.stage_task import stage_task


@stage_task("index")
def index(run: Run, base: ArtifactRef, tokenize: ArtifactRef, score: ArtifactRef | None = None) -> StageOutcome:
    """Select sentences and draw positions for every training sample."""
    inputs = {"base": base, "tokenize": tokenize} | ({"score": score} if score else {})
    return settle(run, "index", inputs, _index)


def _index(work: Work) -> dict[str, Any]:
    from longrecipe_core.corpus import TokenShards, load_tokenizer
    from longrecipe_core.corpus.mixture import Mixture
    from longrecipe_core.positions.index import build_index
    from longrecipe_core.selection import token_classes
    from longrecipe_core.selection.impact import anchor_tokens, read_impact
    from tasks.documents import check_documents  # imports torch, which a cached run has no need of

    recipe = work.run.recipe
    tokens = work.fetch("tokenize")
    check_documents(work)
    tokenizer = load_tokenizer(work.fetch("base"), bool(recipe.model and recipe.model.trust_remote_code))
    anchors = anchor_tokens(read_impact(work.fetch("score")), recipe.selection) if "score" in work.inputs else None
    return build_index(
        TokenShards(tokens, "train"),
        token_classes(tokenizer, recipe.positions.sentence_ends, anchors),
        work.output,
        context=recipe.context,
        selection=recipe.selection,
        positions=recipe.positions,
        samples=recipe.index.samples,
        seed=recipe.seed,
        mixture=Mixture.of(recipe.corpus),
        engine=engine(work),
        progress=work.log,
    )
