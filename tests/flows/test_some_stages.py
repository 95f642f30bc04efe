"""Flows that run a part of a recipe: what they run, what they leave, and what comes out."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.evaluate_model import evaluate_model
from flows.parameters import build_run
from flows.prepare_data import prepare_data
from flows.train_stage import train_stage
from longrecipe_core.errors import LongRecipeError, RecipeError
from tasks.outside import checkpoint_reference


def stages(summary):
    return [(outcome.stage, outcome.status) for outcome in summary.outcomes]


def directory(summary, stage) -> Path:
    return Path(summary.uri(stage))


def losses(evaluation: Path, model: str):
    """The mean loss of each bucket, as it stands in the file."""
    rows = [row for row in pq.read_table(evaluation / "evaluation.parquet").to_pylist() if row["model"] == model]
    return [(row["start"], row["end"], row["value"]) for row in rows if row["measure"] == "nll"]


def remove(summary, store: Path, *names: str) -> None:
    for outcome in summary.outcomes:
        if outcome.stage in names:
            shutil.rmtree(store / outcome.ref.kind / outcome.ref.fingerprint[:16])


def test_prepare_data_makes_data_only(first_run, recipe_file, store):
    made = first_run[1]
    remove(made, store, "index", "replay")
    summary = prepare_data(recipe=str(recipe_file), store=str(store))
    assert stages(summary) == [("base", "hit"), ("tokenize", "hit"), ("index", "ran"), ("replay", "ran")]
    assert list(summary.to_json()) == ["stages"]
    keys = {outcome.stage: outcome.ref.fingerprint for outcome in made.outcomes}
    assert all(outcome.ref.fingerprint == keys[outcome.stage] for outcome in summary.outcomes)


def test_train_stage_runs_one_stage_and_stops(first_run, recipe_file, store):
    remove(first_run[1], store, "merge", "evaluate", "report")
    summary = train_stage(recipe=str(recipe_file), store=str(store), stage="merge")
    reads = ["base", "tokenize", "index", "extend", "replay", "anneal"]
    assert stages(summary) == [*((name, "hit") for name in reads), ("merge", "ran")]
    assert not (store / "report").exists() or not list((store / "report").iterdir())
    assert summary.to_json()["model"] == summary.uri("merge")


def test_train_stage_makes_no_other_stage(first_run, recipe_file, store):
    remove(first_run[1], store, "index", "extend")
    with pytest.raises(LongRecipeError, match="index"):
        train_stage(recipe=str(recipe_file), store=str(store), stage="extend")
    with pytest.raises(RecipeError, match="has no stage score; allowed: base, tokenize, index, extend"):
        train_stage(recipe=str(recipe_file), store=str(store), stage="score")


def test_evaluate_model_takes_a_directory_by_its_content(first_run, recipe_file, store, tmp_path):
    made = first_run[1]
    for copy in ("one", "two"):
        shutil.copytree(directory(made, "extend"), tmp_path / copy)
    given = {"recipe": str(recipe_file), "store": str(store)}
    summary = evaluate_model(**given, checkpoint=str(tmp_path / "one"))
    assert stages(summary) == [("base", "hit"), ("tokenize", "hit"), ("measure", "ran")]
    assert losses(directory(summary, "measure"), "model") == losses(directory(made, "evaluate"), "stage 0, extended")
    assert stages(evaluate_model(**given, checkpoint=str(tmp_path / "two")))[-1] == ("measure", "hit")

    run = build_run(given)
    before = checkpoint_reference(run, str(tmp_path / "two")).fingerprint
    weights = tmp_path / "two" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert checkpoint_reference(run, str(tmp_path / "two")).fingerprint != before
    assert checkpoint_reference(run, f"file://{tmp_path}/one").fingerprint == before


def test_a_checkpoint_that_is_an_artifact_is_one(first_run, recipe_file, store):
    run = build_run({"recipe": str(recipe_file), "store": str(store)})
    merged = next(outcome for outcome in first_run[1].outcomes if outcome.stage == "merge")
    uri = str(store / "checkpoint" / merged.ref.fingerprint[:16] / Path(merged.ref.uri).name)
    assert checkpoint_reference(run, uri).fingerprint == merged.ref.fingerprint
    with pytest.raises(LongRecipeError, match="nothing-here"):
        checkpoint_reference(run, "/nothing-here")
