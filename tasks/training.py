"""Stages that train: `base`, `extend` and `anneal`."""

import shutil
from pathlib import Path
from typing import Any

from longrecipe_core.artifacts import ArtifactRef
from longrecipe_core.evaluation.minimum_copying import check_base_copying
from tasks.run import Run, StageOutcome, Work, settle
from tasks.stage_task import stage_task
from tasks.training_run import train


@stage_task("base")
def base(run: Run, corpus: ArtifactRef) -> StageOutcome:
    """Train a tokenizer and a small base model on the spot.

    Raises BaseModelError where it copies less than the recipe asks. It is in the store all the same: what is enough is
    asked anew in every run, of what was measured when it was trained.
    """
    outcome = settle(run, "base", {"corpus": corpus}, _base)
    minimum = run.recipe.base and run.recipe.base.minimum_copying
    found = run.open_store().manifest_of(outcome.ref).metrics.get("copying") if minimum else None
    if minimum and isinstance(found, dict):  # an adopted checkpoint was not measured: whoever adopts it knows it
        check_base_copying(found, minimum, outcome.ref.uri)
    return outcome


@stage_task("warmup")
def warmup(run: Run, base: ArtifactRef, tokenize: ArtifactRef) -> StageOutcome:
    """A short full-length training, whose result stage `score` compares with the base model (paper, section 4.1)."""
    return settle(run, "warmup", {"base": base, "tokenize": tokenize}, _warmup)


@stage_task("extend")
def extend(run: Run, base: ArtifactRef, tokenize: ArtifactRef, index: ArtifactRef) -> StageOutcome:
    """Stage 0: context extension on skipped positions."""
    return settle(run, "extend", {"base": base, "tokenize": tokenize, "index": index}, _extend)


@stage_task("anneal")
def anneal(run: Run, extend: ArtifactRef, replay: ArtifactRef) -> StageOutcome:
    """Stage 1: annealing on replay data, at a rate that decays to zero."""
    return settle(run, "anneal", {"extend": extend, "replay": replay}, _anneal)


def _base(work: Work) -> dict[str, Any]:
    from longrecipe_core.corpus import (
        Filters,
        document_id,
        is_validation,
        iterate_documents,
        load_tokenizer,
        resolve_source,
        share_of,
        tokenize,
        train_tokenizer,
    )
    from longrecipe_core.corpus.tokenizer_training import plain_ids
    from longrecipe_core.evaluation.base_copying import copying_documents, measure_base_copying
    from longrecipe_core.modeling import make_tiny_config, make_tiny_model
    from longrecipe_core.training.job import DataSpec

    recipe = work.run.recipe
    section = recipe.base
    assert section is not None
    scratch = work.output.parent
    sources = [resolve_source(source) for source in recipe.corpus.sources]
    share = recipe.corpus.validation_share
    # The tokenizer and the base model must not see what the evaluation is measured on.
    kept = (
        text
        for source in sources
        for document in iterate_documents(source)
        if document.text and not is_validation(document_id(text := document.joined()), share_of(source, share))
    )
    train_tokenizer(kept, section.vocabulary_size, scratch / "tokenizer", model_max_length=section.window)
    shutil.rmtree(scratch / "tokens", ignore_errors=True)
    counts = tokenize(
        sources,
        scratch / "tokenizer",
        scratch / "tokens",
        validation_share=share,
        filters=Filters.of(recipe.corpus),
        progress=work.log,
    )
    if section.minimum_copying is not None:
        copying_documents(scratch / "tokens", section.minimum_copying, window=section.window, seed=recipe.seed)
    tokenizer = load_tokenizer(scratch / "tokenizer")
    config = make_tiny_config(
        section,
        len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    shutil.rmtree(scratch / "start", ignore_errors=True)
    make_tiny_model(config, scratch / "tokenizer", scratch / "start", seed=recipe.seed)
    training = section.training
    data = DataSpec(
        kind="windows",
        tokens=scratch / "tokens",
        length=section.window,
        samples=(training.steps or 0) * training.global_batch or None,
        copies=section.copies,
        random_ids=plain_ids(tokenizer) if section.copies is not None else None,
    )
    metrics = {"corpus": counts} | train(work, start=scratch / "start", data=data, training=training, rope=None)
    if section.minimum_copying is not None:
        metrics["copying"] = measure_base_copying(
            work.output, scratch / "tokens", section.minimum_copying, window=section.window, seed=recipe.seed
        )
    return metrics


def _warmup(work: Work) -> dict[str, Any]:
    from longrecipe_core.training.job import DataSpec
    from tasks.documents import check_documents

    check_documents(work)
    recipe = work.run.recipe
    assert recipe.score is not None
    assert recipe.score.warmup is not None
    training = recipe.score.warmup
    data = DataSpec(
        kind="windows",
        tokens=work.fetch("tokenize"),
        length=recipe.context.target_length,
        samples=(training.steps or 0) * training.global_batch or None,
    )
    return train(work, start=work.fetch("base"), data=data, training=training, rope=recipe.rope)


def _extend(work: Work) -> dict[str, Any]:
    from longrecipe_core.training.job import DataSpec

    recipe = work.run.recipe
    data = DataSpec(
        kind="indexed",
        tokens=work.fetch("tokenize"),
        index=work.fetch("index"),
        length=recipe.context.train_length,
    )
    return train(work, start=work.fetch("base"), data=data, training=recipe.extend, rope=recipe.rope)


def _anneal(work: Work) -> dict[str, Any]:
    from longrecipe_core.training.job import DataSpec

    recipe = work.run.recipe
    data = DataSpec(
        kind="packed",
        tokens=work.fetch("replay"),
        length=recipe.context.train_length,
        loss_on_prompt=recipe.replay.loss_on_prompt,
        attention_across_samples=recipe.replay.attention_across_samples,
    )
    start: Path = work.fetch("extend")
    return train(work, start=start, data=data, training=recipe.anneal, rope=None)
