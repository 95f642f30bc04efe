"""Retraining: nothing to do, one document more, a worse model, another run that was faster."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pytest
from polling import wait_until
from prefect.client.orchestration import get_client

from flows import retrain as retraining
from flows.extend_context import extend_context
from flows.parameters import parameters_of
from flows.retrain import candidate_of, decide, measure_present, retrain
from longrecipe_core.artifacts import ArtifactStore
from longrecipe_core.artifacts.pointers import Pointer, move_pointer, read_pointer
from longrecipe_core.corpus import train_tokenizer
from longrecipe_core.recipe import Recipe
from tasks.corpus import tokenize
from tasks.outside import look_outside
from tasks.run import Run

WORSE = ["anneal.learning_rate=3", "anneal.clip=1e9", "merge.base_weight=0", "merge.trained_weight=1"]


# The flow's whole body, on data and a recipe that have not changed.
LOOK = """
import sys
from flows.retrain import retrain
from longrecipe_core.artifacts.pointers import Pointer, move_pointer
from longrecipe_core.recipe import Recipe
from tasks.outside import look_outside
from tasks.run import Run
from tasks.stages import stage_keys
recipe, store, base = sys.argv[1:]
overrides = ["base=null", f"model.path={base}"]
run = Run(recipe=Recipe.load(recipe, overrides), store=store)
keys = stage_keys(run.recipe, look_outside(run.recipe, run.open_store()))
pointer = Pointer(refs=(), model="a/b/c/d", evaluation="a/b/c/d", fingerprints=keys, promoted="now", run="x")
assert move_pointer(run.open_store(), "seconds", None, pointer)
assert retrain.fn(recipe=recipe, overrides=overrides, store=store).outcomes == []
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""


def ran(summary):
    return [outcome.stage for outcome in summary.outcomes if outcome.status == "ran"]


def uri(summary, stage):
    return next(outcome.ref.uri for outcome in summary.outcomes if outcome.stage == stage)


def call(recipe, store):
    return retrain(**parameters_of(recipe), store=str(store))


def latest(store, name="seconds"):
    command = [sys.executable, "-m", "flows.cli", "latest", name, "--store", str(store)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def api(path, **body):
    with get_client(sync_client=True) as client:
        return client._client.post(path, json=body).raise_for_status().json()


def newest_flow_run():
    return api("/flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]["id"]


def task_runs(flow_run):
    wanted = {"flow_runs": {"id": {"any_": [flow_run]}}}
    return [one["name"] for one in api("/task_runs/filter", **wanted)]


def told(flow_run):
    """A finished run's own log lines, without Prefect's."""
    wanted = {"flow_run_id": {"any_": [flow_run]}}

    def whole():
        lines = [one["message"] for one in api("/logs/filter", logs=wanted, sort="TIMESTAMP_ASC")]
        return lines if lines and lines[-1].startswith("Finished in state") else None

    lines = wait_until(whole, "for the log", every=0.2)
    return [line for line in lines if not line.startswith(("Beginning flow run", "View at", "Finished in"))]


def events_of(flow_run, count):
    """The model events of a run, once the server has them."""
    wanted = {"event": {"prefix": ["longrecipe.model."]}, "related": {"id": [f"prefect.flow-run.{flow_run}"]}}

    def found():
        events = api("/events/filter", filter=wanted)["events"]
        return events if len(events) >= count else None

    return wait_until(found, f"for {count} events", every=0.2)


def test_what_was_made_but_not_promoted_is_promoted_then_nothing_is_done(store, recipe_file, monkeypatch):
    """The store is as a run leaves it that was killed between its evaluation and the promotion."""

    def refuse(*arguments, **options):
        raise AssertionError(f"a process was started: {arguments}")

    recipe = Recipe.load(recipe_file)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        first = call(recipe, store)
        flow_run = newest_flow_run()
        assert ran(first) == []
        (event,) = events_of(flow_run, 1)
        assert (event["event"], event["resource"]["prefect.resource.id"]) == (
            "longrecipe.model.promoted",
            "longrecipe.model.seconds",
        )
        assert event["payload"]["model"] == uri(first, "merge")

        written = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
        assert call(recipe, store).outcomes == []
        assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == written
        unchanged = newest_flow_run()
        assert task_runs(unchanged) == []
        assert api("/artifacts/filter", flow_runs={"id": {"any_": [unchanged]}}) == []
        (line,) = told(unchanged)
        assert "nothing has changed since" in line
    shown = latest(store)
    assert (shown.stdout, shown.stderr) == (f"{uri(first, 'merge')}\n", "")
    other = latest(store, "other")
    assert other.returncode == 1
    assert "of others: seconds" in other.stderr


def test_an_unchanged_look_imports_no_torch(store, recipe_file, first_run, prefect_api):
    """With a pretrained model, too, whose files are looked at."""
    base = next(outcome.ref.uri for outcome in first_run[1].outcomes if outcome.stage == "base")
    done = subprocess.run(
        [sys.executable, "-c", LOOK, recipe_file, str(store), base], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.fixture
def pretrained(recipe_file, first_run, tmp_path):
    """The recipe with a model in place of a base, and documents of its own to change."""
    base = next(outcome.ref.uri for outcome in first_run[1].outcomes if outcome.stage == "base")
    shutil.copytree(Recipe.load(recipe_file).corpus.sources[0].path, tmp_path / "documents")
    return Recipe.load(
        recipe_file, ["base=null", f"model.path={base}", f"corpus.sources.0.path={tmp_path / 'documents'}"]
    )


def test_one_document_more_runs_what_depends_on_it(pretrained, prefect_api, tmp_path, monkeypatch):
    """All in a store in memory: jobs see local files only."""
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    store = f"memory://retrain/{tmp_path.name}"
    generous = Recipe.parse(pretrained.to_yaml(), ["promotion={short: 9, long: 9}"])
    first = call(generous, store)
    pointer = read_pointer(ArtifactStore(store), "seconds")
    assert pointer.model == uri(first, "merge")
    assert pointer.model.startswith("memory://")
    assert "base" not in ran(first)

    text = "\n".join(f"Line {number} has word{number % 7} in it." for number in range(70))
    (tmp_path / "documents" / "new.txt").write_text(text)
    second = call(generous, store)
    assert ran(second) == ["tokenize", "index", "extend", "anneal", "merge", "evaluate", "report"]
    moved = read_pointer(ArtifactStore(store), "seconds")
    assert (moved.model, moved.previous) == (uri(second, "merge"), pointer.model)
    # The present model was measured on the documents of now, and once.
    assert [name for name in task_runs(newest_flow_run()) if name.startswith("measure")]
    assert len(ArtifactStore(store).location.fs.ls(f"retrain/{tmp_path.name}/evaluation")) == 3
    (tmp_path / "documents" / "new.txt").unlink()
    (tmp_path / "documents" / "new.txt").write_text(text)
    assert call(generous, store).outcomes == []


def test_a_worse_model_is_kept_and_looked_at_again_with_another_tolerance(store, recipe_file):
    first = call(Recipe.load(recipe_file), store)
    strict = Recipe.load(recipe_file, [*WORSE, "promotion={short: 0.0, long: 0.0}"])
    second = call(strict, store)
    flow_run = newest_flow_run()
    assert ran(second) == ["anneal", "merge", "evaluate", "report"]
    (event,) = events_of(flow_run, 1)
    assert event["event"] == "longrecipe.model.kept"
    scores = event["payload"]["new"], event["payload"]["present"]
    assert scores[0]["short"] > scores[1]["short"]
    assert read_pointer(ArtifactStore(store), "seconds").model == uri(first, "merge")
    assert call(strict, store).outcomes == []

    generous = Recipe.load(recipe_file, [*WORSE, "promotion={short: 100, long: 100}"])
    third = call(generous, store)
    assert ran(third) == []
    assert read_pointer(ArtifactStore(store), "seconds").model == uri(second, "merge")


@pytest.fixture
def whole(store, recipe_file):
    """A run of everything, all hits, whose merged model any other may take the place of."""
    run = Run(recipe=Recipe.load(recipe_file, ["promotion={short: 99, long: 99}"]), store=str(store))
    return run, extend_context(**parameters_of(run.recipe), store=run.store)


def test_the_slower_of_two_runs_compares_with_the_faster_one(whole, monkeypatch):
    run, summary = whole
    other = uri(summary, "anneal")  # what the faster run promotes
    seen: list[Pointer | None] = []

    def late(run, present, candidate):
        if not seen:
            faster = Pointer(
                refs=(other,), model=other, evaluation=other, fingerprints={}, promoted="now", run="faster"
            )
            assert move_pointer(run.open_store(), "seconds", None, faster)
        seen.append(present)
        return measure_present(run, present, candidate)

    monkeypatch.setattr(retraining, "measure_present", late)
    decision = decide(run, candidate_of(summary))
    assert [present and present.run for present in seen] == [None, "faster"]
    assert (decision.outcome, decision.present is not None) == ("promoted", True)
    pointer = read_pointer(run.open_store(), "seconds")
    assert (pointer.model, pointer.previous) == (uri(summary, "merge"), other)


def test_another_tokenizer_reads_the_same_texts(whole, tmp_path):
    """The new model's tokenizer has more entries: the present one is measured through its own, and converted."""
    run, summary = whole
    artifacts = run.open_store()
    shutil.copytree(uri(summary, "merge"), tmp_path / "new")
    documents = Path(run.recipe.corpus.sources[0].path)
    train_tokenizer((path.read_text() for path in documents.iterdir()), 400, tmp_path / "new", model_max_length=128)
    new = artifacts.commit("checkpoint", "f" * 64, tmp_path / "new", recipe={}, seconds=0)
    tokens = tokenize(run, new, look_outside(run.recipe, artifacts)["corpus"]).ref
    candidate = candidate_of(summary).model_copy(update={"model": new, "tokens": tokens})
    model, evaluation = uri(summary, "merge"), uri(summary, "evaluate")
    present = Pointer(refs=(), model=model, evaluation=evaluation, fingerprints={}, promoted="", run="")
    measured = measure_present(run, present, candidate)
    own = next(entry.uri for entry in artifacts.manifest_of(measured.evaluation).inputs if entry.kind == "tokens")
    assert measured.nll_scale == pytest.approx(validation_length(own) / validation_length(tokens.uri))
    assert measured.nll_scale > 1


def validation_length(directory: str) -> int:
    """Tokens, counted in the shards themselves."""
    shards = sorted(Path(directory).glob("validation-*.arrow"))
    tables = [pa.ipc.open_file(shard).read_all() for shard in shards]
    return sum(len(ids) for table in tables for ids in table.column("input_ids").to_pylist())


@pytest.fixture
def mounted(store, tmp_path):
    """The store on another filesystem, where there is one, and a link that leads there."""
    shared = Path("/dev/shm")
    there = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else tmp_path))
    shutil.copytree(store, there / "store")
    (tmp_path / "mount").symlink_to(there)
    yield there / "store", tmp_path / "mount" / "store"
    shutil.rmtree(there)


def test_a_shared_directory_without_hard_links(mounted, recipe_file, monkeypatch):
    """By a `file://` URL, through a link: trained, committed and promoted there, and found by the other path."""

    def refuse(*arguments, **options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    there, here = mounted
    recipe = Recipe.load(recipe_file, ["anneal.steps=6", "promotion={short: 9, long: 9}"])
    summary = call(recipe, f"file://{here}")
    assert ran(summary) == ["anneal", "merge", "evaluate", "report"]
    pointer = json.loads((there / "pointers" / "latest-seconds.json").read_text())
    assert pointer["model"] == uri(summary, "merge")
    assert pointer["model"].startswith(f"{here}/")
    assert latest(there).stdout == f"{there}{pointer['model'].removeprefix(str(here))}\n"
