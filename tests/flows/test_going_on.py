"""Adopt, force and start from a stage through whole flows; and the command that a failed run prints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from prefect_home import make_home
from safetensors.numpy import load_file, save_file

from flows.extend_context import extend_context
from flows.parameters import parameters_of
from flows.plan import plan
from longrecipe_core.artifacts import ArtifactStore, RunRecords
from longrecipe_core.errors import RecipeError, StartFromError
from longrecipe_core.recipe import Recipe
from tasks.run import Run


def flow(recipe: Recipe, store: Path, **choices):
    return extend_context(**parameters_of(recipe), store=str(store), **choices)


def planned(recipe: Recipe, store: Path, **choices) -> dict[str, str]:
    return {line.stage: line.status for line in plan(Run(recipe=recipe, store=str(store), **choices))}


def ran(summary) -> list[str]:
    return [outcome.stage for outcome in summary.outcomes if outcome.status == "ran"]


def of(summary, stage: str):
    return next(outcome for outcome in summary.outcomes if outcome.stage == stage)


@pytest.fixture
def checkpoint(first_run, tmp_path) -> Path:
    """The extended model with other weights, somewhere outside the store."""
    directory = tmp_path / "mine"
    shutil.copytree(of(first_run[1], "extend").ref.uri, directory)
    weights = load_file(directory / "model.safetensors")
    save_file(
        {name: tensor + np.float32(0.01) for name, tensor in weights.items()},
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )
    return directory


def test_an_adopted_checkpoint_is_what_the_stages_after_it_are_made_from(store, recipe_file, checkpoint):
    recipe, adopt = Recipe.load(recipe_file), {"extend": str(checkpoint)}
    foretold = planned(recipe, store, adopt=adopt)
    assert [stage for stage, status in foretold.items() if status == "adopt"] == ["extend"]
    assert [stage for stage, status in foretold.items() if status == "run"] == ["anneal", "evaluate"]
    summary = flow(recipe, store, adopt=adopt, start_from="anneal")
    assert ran(summary) == ["extend", "anneal", "merge", "evaluate", "report"]
    assert of(summary, "extend").why == f"adopted from {checkpoint}"
    page = (Path(of(summary, "report").ref.uri) / "report.html").read_text()
    assert f"Stage extend was adopted from {checkpoint}" in page
    assert ran(flow(recipe, store, adopt=adopt)) == []
    assert ran(flow(recipe, store)) == []
    assert set(planned(recipe, store).values()) == {"hit"}


def test_force_and_start_from(store, recipe_file):
    recipe = Recipe.load(recipe_file)
    assert [stage for stage, status in planned(recipe, store, force=("index",)).items() if status == "run"] == ["index"]
    summary = flow(recipe, store, force=["index"])
    assert ran(summary) == ["index"]  # the same bytes, so that nothing after it need be made again
    other = Recipe.load(recipe_file, ["anneal.steps=3"])
    assert planned(other, store, start_from="merge")["anneal"] == "refuse"
    with pytest.raises(StartFromError, match=r"anneal: comes before start_from merge .*anneal\.steps 4 → 3"):
        flow(other, store, start_from="merge")
    with pytest.raises(RecipeError, match="start_from: this recipe has no stage score; allowed: base, tokenize"):
        flow(recipe, store, start_from="score")
    states = [run.state for run in RunRecords(ArtifactStore(store)).newest_first()]
    assert states[:2] == ["failed", "completed"]


def test_the_command_that_a_failed_run_prints_resumes_it(store, first_run, recipe_file, tmp_path):
    """In a shell, from its last line on stderr; the recipe's path has a blank."""
    recipe = tmp_path / "a recipe.yaml"
    shutil.copy(recipe_file, recipe)
    reports = store / "report"
    shutil.rmtree(reports)
    reports.write_text("in the way")
    environment = os.environ | {"PREFECT_HOME": str(make_home(tmp_path / "prefect")), "PREFECT_API_URL": ""}
    failing = [
        sys.executable,
        "-m",
        "flows.cli",
        "run",
        str(recipe),
        "--set",
        "launch.threads=1",
        "--store",
        str(store),
    ]
    failed = subprocess.run(failing, capture_output=True, text=True, env=environment, check=False)
    assert failed.returncode == 1
    [told] = {line.partition("to resume: ")[2] for line in failed.stderr.splitlines() if "to resume: " in line}
    listed = subprocess.run(
        [sys.executable, "-m", "flows.cli", "runs", "--store", str(store)],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert f"to resume: {told}" in listed.stdout
    reports.unlink()
    resumed = subprocess.run(told, shell=True, capture_output=True, text=True, env=environment, check=False)
    assert resumed.returncode == 0, resumed.stderr
    records = list(RunRecords(ArtifactStore(store)).newest_first())
    assert [record.state for record in records[:2]] == ["completed", "failed"]
    assert [stage.stage for stage in records[0].stages if stage.status == "ran"] == ["report"]
