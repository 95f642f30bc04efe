"""The flow against its promises: what hits, what runs again, and why."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prefect_home import make_home

from flows.extend_context import extend_context
from flows.parameters import parameters_of
from flows.plan import plan
from longrecipe_core.errors import LaunchError
from longrecipe_core.recipe import Recipe
from tasks.run import Run

STAGES = ["base", "tokenize", "index", "extend", "replay", "anneal", "merge", "evaluate", "report"]


def statuses(summary):
    return {outcome.stage: outcome.status for outcome in summary.outcomes}


def ran(summary):
    return [outcome.stage for outcome in summary.outcomes if outcome.status == "ran"]


@pytest.fixture
def no_process(monkeypatch):
    """Any process that is started is an error."""

    def refuse(*arguments, **options):
        raise AssertionError(f"a process was started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def attempt(store: Path, outcome) -> Path:
    """The attempt's directory in a copied store."""
    return store / outcome.ref.kind / outcome.ref.fingerprint[:16] / Path(outcome.ref.uri).name


def outcome_of(summary, stage):
    return next(outcome for outcome in summary.outcomes if outcome.stage == stage)


def test_first_run_makes_every_stage(first_run):
    store, summary = first_run
    assert [outcome.stage for outcome in summary.outcomes] == STAGES
    assert ran(summary) == STAGES
    # What travels is small: a reference, no data.
    assert all(len(outcome.model_dump_json()) < 2000 for outcome in summary.outcomes)
    for outcome in summary.outcomes:
        directory = Path(outcome.ref.uri)
        assert (directory / "about" / "recipe.yaml").is_file()
        assert json.loads((directory.parent / "manifest.json").read_text())["attempt"] == directory.name
    assert not list((store / "staging").iterdir())


def test_second_run_hits_everything_and_starts_no_process(store, recipe_file, no_process):
    summary = extend_context(**parameters_of(Recipe.load(recipe_file)), store=str(store))
    assert statuses(summary) == dict.fromkeys(STAGES, "hit")


def test_how_it_is_computed_is_no_part_of_the_key(store, recipe_file, no_process):
    recipe = Recipe.load(recipe_file, ["launch.micro_batch=2", "launch.workers=2", "launch.threads=2"])
    assert ran(extend_context(**parameters_of(recipe), store=str(store))) == []


def test_another_merge_weight_runs_merge_and_what_follows(store, recipe_file):
    recipe = Recipe.load(recipe_file, ["merge.base_weight=0.25", "merge.trained_weight=0.75"])
    assert ran(extend_context(**parameters_of(recipe), store=str(store))) == ["merge", "evaluate", "report"]


def test_a_changed_document_runs_what_depends_on_it(store, recipe_file, tmp_path):
    replay = tmp_path / "replay.jsonl"
    replay.write_text('{"q": "What is 1 plus 1?", "a": "It is two."}\n' * 60)
    recipe = Recipe.load(recipe_file, [f"replay.sources.0.path={replay}"])
    assert ran(extend_context(**parameters_of(recipe), store=str(store))) == [
        "replay",
        "anneal",
        "merge",
        "evaluate",
        "report",
    ]


def test_moved_sources_are_the_same_sources(store, recipe_file, tmp_path, no_process):
    documents = Path(Recipe.load(recipe_file).corpus.sources[0].path)
    (tmp_path / "elsewhere").symlink_to(documents)
    recipe = Recipe.load(recipe_file, [f"corpus.sources.0.path={tmp_path / 'elsewhere'}"])
    assert ran(extend_context(**parameters_of(recipe), store=str(store))) == []


def test_stage_0_is_not_repeated_after_stage_1_broke(prefect_api, recipe_file, first_run, tmp_path):
    store = str(tmp_path / "store")
    broken = Recipe.load(recipe_file, ["anneal.learning_rate=1e30", "anneal.clip=1e30", "anneal.schedule=constant"])
    with pytest.raises(LaunchError, match=r"step .* is (nan|inf)"):
        extend_context(**parameters_of(broken), store=store)
    summary = extend_context(**parameters_of(Recipe.load(recipe_file)), store=store)
    assert ran(summary) == ["anneal", "merge", "evaluate", "report"]


@pytest.mark.parametrize("stage", ["tokenize", "extend", "evaluate"])
def test_a_flipped_bit_behind_a_cached_stage_is_noticed_and_made_again(store, first_run, recipe_file, stage):
    directory = attempt(store, outcome_of(first_run[1], stage))
    victim = max((path for path in directory.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    summary = extend_context(**parameters_of(Recipe.load(recipe_file)), store=str(store))
    # Made again with the same bytes: what was made from it stays valid.
    assert ran(summary) == [stage]
    assert victim.name in outcome_of(summary, stage).why
    assert Path(outcome_of(summary, stage).ref.uri).name != directory.name
    assert (directory / victim.name).exists()  # nothing is deleted


def test_a_deleted_artifact_is_made_again(store, first_run, recipe_file):
    directory = attempt(store, outcome_of(first_run[1], "index"))
    for path in sorted(directory.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert ran(extend_context(**parameters_of(Recipe.load(recipe_file)), store=str(store))) == ["index"]


def test_what_was_made_from_other_bytes_is_made_again(store, first_run, recipe_file):
    """An input whose content has changed since, under the same fingerprint, is told by `plan` and by the run."""
    merged = attempt(store, outcome_of(first_run[1], "merge"))
    manifest = merged.parent / "manifest.json"
    record = json.loads(manifest.read_text())
    assert record["inputs"][1]["kind"] == "checkpoint"
    record["inputs"][1]["content_sha256"] = "0" * 64
    manifest.write_text(json.dumps(record))
    lines = {line.stage: line for line in plan(Run(recipe=Recipe.load(recipe_file), store=str(store)))}
    assert lines["merge"].status == "run"
    assert "another content" in lines["merge"].why
    assert ran(extend_context(**parameters_of(Recipe.load(recipe_file)), store=str(store))) == ["merge"]


def test_plan_tells_what_a_run_does(store, recipe_file):
    recipe = Recipe.load(recipe_file, ["merge.base_weight=0.1"])
    planned = list(plan(Run(recipe=recipe, store=str(store))))
    assert [line.stage for line in planned if line.status == "run"] == ["merge", "evaluate", "report"]
    summary = extend_context(**parameters_of(recipe), store=str(store))
    assert ran(summary) == ["merge", "evaluate", "report"]
    assert [outcome.ref.fingerprint for outcome in summary.outcomes] == [line.fingerprint for line in planned]


def test_evaluation_measures_all_five_models(first_run):
    table = pq.read_table(Path(outcome_of(first_run[1], "evaluate").ref.uri) / "evaluation.parquet").to_pylist()
    models = ["base", "base, RoPE change only", "stage 0, extended", "stage 1, annealed", "stage 2, merged"]
    assert list(dict.fromkeys(row["model"] for row in table)) == models
    assert [(row["start"], row["end"]) for row in table[:4]] == [(0, 32), (32, 64), (64, 96), (96, 128)]
    assert all(row["value"] > 0 for row in table)


def longrecipe(*arguments, **environment):
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_command_line_run_plan_and_verify(store, first_run, recipe_file, tmp_path):
    """With no server: Prefect's ephemeral API, in a home of its own."""
    home = {"PREFECT_HOME": str(make_home(tmp_path / "prefect")), "PREFECT_API_URL": "", "LONGRECIPE_STORE": str(store)}
    result = longrecipe("run", recipe_file, **home)
    assert result.returncode == 0, result.stderr
    last = json.loads(result.stdout.splitlines()[-1])
    assert [stage["stage"] for stage in last["stages"]] == STAGES
    assert {stage["status"] for stage in last["stages"]} == {"hit"}
    assert set(last["stages"][0]) == {"stage", "fingerprint", "uri", "status", "seconds"}
    assert last["model"] == last["stages"][6]["uri"]
    assert (Path(last["model"]) / "config.json").is_file()
    assert (Path(last["report"]) / "report.html").is_file()
    assert re.search(r"^stage 2, merged( +\d\.\d{3}){4}$", result.stdout, re.MULTILINE)

    planned = longrecipe("plan", recipe_file, "--set", "merge.base_weight=0", **home)
    assert [line.split()[:2] for line in planned.stdout.splitlines()][5:7] == [
        ["anneal", "hit"],
        ["merge", "run"],
    ]

    assert longrecipe("verify", last["model"], **home).returncode == 0
    (Path(last["model"]) / "config.json").write_text("{}")
    broken = longrecipe("verify", last["model"], **home)
    assert broken.returncode == 1
    assert "config.json" in broken.stderr
    assert len(broken.stderr.splitlines()) == 1
