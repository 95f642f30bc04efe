"""Selection by impactful tokens, from each of the three extended models to the report."""

import json
from pathlib import Path

import numpy as np
import pytest

from flows.extend_context import extend_context
from flows.parameters import parameters_of
from flows.plan import plan
from longrecipe_core.artifacts import ArtifactStore
from longrecipe_core.errors import EvaluationError, LaunchError, RecipeError
from longrecipe_core.recipe import Recipe
from longrecipe_core.selection.impact import anchor_tokens, read_impact
from tasks.corpus import tokenize
from tasks.index import index
from tasks.outside import look_outside
from tasks.run import Run
from tasks.score import score
from tasks.training import base

AFTER = ["index", "extend", "replay", "anneal", "merge", "evaluate", "report"]
AFTER_INDEX = [stage for stage in AFTER if stage != "replay"]  # replay knows nothing of the selection
SHORT = {"learning_rate": 3e-3, "steps": 2, "global_batch": 2, "precision": "fp32"}


def scored(recipe_file, first_run, source, *more):
    """The recipe of seconds with impactful tokens found in one of the three ways."""
    merged = next(outcome.ref.uri for outcome in first_run[1].outcomes if outcome.stage == "merge")
    section = {
        "long-short": {"length": 32, "short_length": 6},
        "model": {"model": {"path": merged}, "length": 64},
        "warmup": {"warmup": SHORT},
    }[source]
    score = {"source": source, "documents": 3, "precision": "fp32"} | section
    return Recipe.load(
        recipe_file, ["selection={strategy: impactful, minimum_count: 1}", f"score={json.dumps(score)}", *more]
    )


def outcomes(summary):
    return {outcome.stage: outcome for outcome in summary.outcomes}


def planned(recipe_file, first_run, store, source, *more):
    """Stages that would run with these changes."""
    recipe = scored(recipe_file, first_run, source, *more)
    return [line.stage for line in plan(Run(recipe=recipe, store=str(store))) if line.status == "run"]


def check_scores(store, recipe, ref, documents, counted):
    """What the artifact and its manifest say of so many tokens per document; returns the metrics."""
    table = read_impact(Path(ref.uri))
    counts = table.column("count").to_numpy()
    metrics = ArtifactStore(str(store)).manifest_of(ref).metrics
    assert metrics["documents"] == documents
    assert counts.sum() == metrics["tokens"] == documents * counted
    classes = np.array(table.column("token_class").to_pylist())
    able = (counts > 0) & (classes != "punctuation") & (classes != "white space") & (classes != "special")
    assert anchor_tokens(table, recipe.selection).sum() == np.ceil(0.2 * able.sum())
    return metrics


@pytest.mark.parametrize(("source", "counted"), [("long-short", 32 - 1 - 6), ("model", 64 - 1)])
def test_scores_make_an_index(store, first_run, recipe_file, source, counted):
    """From the index on nothing knows the source, so that one flow to the end, below, is enough."""
    recipe = scored(recipe_file, first_run, source)
    assert planned(recipe_file, first_run, store, source) == ["score", *AFTER_INDEX]
    run = Run(recipe=recipe, store=str(store))
    outside = look_outside(recipe, run.open_store())
    start = base.fn(run, outside["corpus"]).ref
    tokens = tokenize.fn(run, start, outside["corpus"]).ref
    scores = score.fn(run, start, tokens, score_model=outside.get("score_model"))
    check_scores(store, recipe, scores.ref, 3, counted)
    samples = index.fn(run, start, tokens, scores.ref)
    assert [outcome.status for outcome in (scores, samples)] == ["ran", "ran"]
    assert samples.ref.fingerprint != outcomes(first_run[1])["index"].ref.fingerprint
    assert score.fn(run, start, tokens, score_model=outside.get("score_model")).status == "hit"
    changes = {
        "selection.top_share=0.5": AFTER_INDEX,
        "score.documents=4": ["score", *AFTER_INDEX],
        "launch.score_devices=[cpu, cpu]": AFTER_INDEX[1:],
    }
    for change, runs in changes.items():
        assert planned(recipe_file, first_run, store, source, change) == runs


def test_a_warmup_goes_through_to_the_report(store, first_run, recipe_file):
    recipe = scored(recipe_file, first_run, "warmup")
    found = outcomes(extend_context(**parameters_of(recipe), store=str(store)))
    assert list(found) == ["base", "tokenize", "warmup", "score", *AFTER]
    hits = {"base", "tokenize", "replay"}
    assert {stage for stage, outcome in found.items() if outcome.status == "hit"} == hits
    metrics = check_scores(store, recipe, found["score"].ref, 3, 32 - 1)

    # The warm-up is a full-length training at the new RoPE.
    directory = Path(found["warmup"].ref.uri)
    target = recipe.context.target_length
    assert json.loads((directory / "config.json").read_text())["max_position_embeddings"] == target
    rows = (directory / "about" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["tokens"] for row in rows] == [2 * target] * 2

    selection = ArtifactStore(str(store)).manifest_of(found["index"].ref).metrics["selection"]
    page = (Path(found["report"].ref.uri) / "report.html").read_text()
    assert ">Impactful tokens</h2>" in page
    for name, share in metrics["classes"].items():
        assert f'<td class="name">{name}</td>' in page
        assert f"<td>{share:.3f}</td>" in page
    assert ">Selection</h2>" in page
    assert f"<td>{selection['tokens_kept']:,}</td>" in page

    again = extend_context(**parameters_of(recipe), store=str(store))
    assert {outcome.status for outcome in again.outcomes} == {"hit"}
    changes = {
        "selection.top_share=0.5": AFTER_INDEX,
        "score.documents=4": ["score", *AFTER_INDEX],
        "score.warmup.steps=3": ["warmup", "score", *AFTER_INDEX],
        "launch.loss_chunk=5": [],
    }
    for change, runs in changes.items():
        assert planned(recipe_file, first_run, store, "warmup", change) == runs


def test_what_cannot_be_scored_is_told_in_one_line(store, first_run, recipe_file):
    recipe = scored(recipe_file, first_run, "long-short", "score.length=null", "score.short_length=40")
    with pytest.raises(RecipeError, match=r"(?m)^score.short_length 40 .* score.length 32 .* allowed: 2..30$"):
        extend_context(**parameters_of(recipe), store=str(store))
    recipe = scored(recipe_file, first_run, "long-short", "launch.score_devices=[cuda:77, auto]")
    with pytest.raises(LaunchError, match=r"RecipeError: launch.score_devices: no device 'cuda:77'"):
        extend_context(**parameters_of(recipe), store=str(store))


def test_documents_too_short_to_evaluate_are_told_before_the_warmup(store, first_run, recipe_file):
    """A target of 4,096 tokens, which no document has: nothing may be trained first."""
    recipe = scored(recipe_file, first_run, "warmup", "context.target_length=4096")
    with pytest.raises(EvaluationError, match="4096"):
        extend_context(**parameters_of(recipe), store=str(store))
    missing = [line.stage for line in plan(Run(recipe=recipe, store=str(store))) if line.status == "run"]
    assert missing[0] == "warmup"
