"""What surrounds a stage's work: one works and others wait, failures leave nothing, damage is met."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from polling import PATIENCE, wait_until
from smallest_recipe import RECIPE

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, Lease, TrainingState, fingerprint
from longrecipe_core.errors import CorpusError, LaunchError, LeaseLostError, ModelError
from longrecipe_core.modeling.source import model_identity
from longrecipe_core.recipe import CorpusSourceSection, Recipe
from tasks.run import Run, Work, settle, sources_reference
from tasks.stages import STAGES, stage_key, used_inputs, used_stages
from tasks.training_run import keep_newest, restore, states_kept


def reference(name):
    return ArtifactRef(uri=f"outside/{name}", kind="outside", fingerprint=fingerprint(name))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    return Run(recipe=Recipe.parse(yaml.safe_dump(RECIPE)), store=str(tmp_path / "store"))


INPUTS_OF_JOB = {"base": "content of the base model"}
INPUTS = {"base": reference("base"), "anneal": reference("anneal")}


def test_a_stage_takes_exactly_its_inputs(run):
    with pytest.raises(ValueError, match="stage tokenize takes"):
        stage_key(run.recipe, STAGES["tokenize"], {"base": reference("base")})


def test_a_key_is_decided_by_recipe_part_inputs_and_version(run):
    stage = STAGES["merge"]
    inputs = {"base": reference("base"), "anneal": reference("anneal")}
    key = stage_key(run.recipe, stage, inputs)
    other = run.recipe.model_copy(update={"seed": 1, "name": "y"})
    assert stage_key(other, stage, inputs) == key  # no part of a merge
    assert stage_key(run.recipe, stage, inputs | {"anneal": reference("other")}) != key
    newer = type(stage)(stage.name, stage.kind, stage.inputs, stage.version + 1)
    assert stage_key(run.recipe, newer, inputs) != key


SCORES = {
    "nothing": ([], []),
    "long-short": (["score={source: long-short}"], ["score"]),
    "model": (["score={source: model, model: {path: there}}"], ["score"]),
    "warmup": (["score={source: warmup, warmup: {learning_rate: 1e-3, steps: 2}}"], ["warmup", "score"]),
}


@pytest.mark.parametrize("source", SCORES)
def test_stages_follow_their_inputs(source):
    section, more = SCORES[source]
    recipe = Recipe.parse(yaml.safe_dump(RECIPE), [*section, "selection.strategy=impactful"] if section else [])
    known = {"corpus", "replay_sources"} | ({"base"} if recipe.base is None else set())
    known |= {"score_model"} if source == "model" else set()
    for stage in used_stages(recipe):
        assert set(used_inputs(recipe, stage)) <= known, stage.name
        known.add(stage.name)
    assert [stage.name for stage in used_stages(recipe) if stage.name in ("warmup", "score")] == more
    extended = {"warmup": "warmup", "model": "score_model"}.get(source)
    assert set(used_inputs(recipe, STAGES["score"])) == {"base", "tokenize", extended} - {None}
    assert ("score" in used_inputs(recipe, STAGES["index"])) == bool(section)


def test_of_two_runs_one_works_and_the_other_waits_and_reuses(run):
    calls, both_in, outcomes = [], threading.Event(), []

    def make(work):
        calls.append(work.key)
        assert both_in.wait(PATIENCE)
        (work.output / "data.txt").write_text("made")
        return {"rows": 1}

    threads = [threading.Thread(target=lambda: outcomes.append(settle(run, "merge", INPUTS, make))) for _ in range(2)]
    for thread in threads:
        thread.start()
    both_in.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(calls) == 1
    assert sorted(outcome.status for outcome in outcomes) == ["hit", "ran"]
    assert outcomes[0].ref == outcomes[1].ref
    manifest = run.open_store().manifest_of(outcomes[0].ref)
    assert manifest.metrics == {"rows": 1}
    assert {entry.name for entry in manifest.files} == {"data.txt", "about/recipe.yaml"}
    assert Recipe.load(Path(outcomes[0].ref.uri) / "about" / "recipe.yaml") == run.recipe


def test_a_failure_commits_nothing_and_the_next_run_works(run):
    def fail(work):
        (work.output / "half.txt").write_text("half")
        raise LaunchError("out of luck")

    with pytest.raises(LaunchError, match="out of luck"):
        settle(run, "merge", INPUTS, fail)
    key = stage_key(run.recipe, STAGES["merge"], INPUTS)
    assert run.open_store().find("checkpoint", key) is None

    def make(work):
        assert not list(work.output.iterdir())  # what the failed one left is gone
        (work.output / "whole.txt").write_text("whole")
        return {}

    outcome = settle(run, "merge", INPUTS, make)
    assert outcome.status == "ran"
    assert not (Path(outcome.ref.uri) / "half.txt").exists()


def test_an_unreadable_manifest_is_set_aside_and_the_stage_made_again(run):
    def make(work):
        (work.output / "data.txt").write_text("made")
        return {}

    first = settle(run, "merge", INPUTS, make)
    manifest = Path(first.ref.uri).parent / "manifest.json"
    manifest.write_text("{ cut")
    second = settle(run, "merge", INPUTS, make)
    assert second.status == "ran"
    assert second.ref.uri != first.ref.uri
    assert list(manifest.parent.glob("manifest.damaged-*"))


def test_a_pretrained_model_that_changed_since_the_run_began_is_refused(run, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"one")
    base = ArtifactRef(uri=str(model), kind="outside", fingerprint=fingerprint(model_identity(str(model))))

    def make(work):
        assert work.fetch("base") == model
        (model / "model.safetensors").write_bytes(b"other")
        with pytest.raises(ModelError, match="is not the model that it was"):
            work.fetch("base")
        (work.output / "data.txt").write_text("made")
        return {}

    assert settle(run, "merge", INPUTS | {"base": base}, make).status == "ran"


@pytest.fixture
def training(tmp_path):
    """A stage in training: its work, its states, the directory that the job keeps its checkpoints in."""
    store = ArtifactStore(str(tmp_path / "store"), cache=tmp_path / "cache")
    key = fingerprint("training")
    with Lease(store, key) as lease:
        recipe = Recipe.parse(yaml.safe_dump(RECIPE))
        work = Work(
            Run(recipe=recipe, store=store.root), store, STAGES["extend"], key, {}, tmp_path / "o", print, lease
        )
        yield work, TrainingState(store, key, lease), tmp_path / "checkpoints"


def checkpoint(directory: Path, step: int):
    (directory / f"step-{step}").mkdir(parents=True)
    (directory / f"step-{step}" / "model.safetensors").write_text(f"weights after {step}")
    (directory / f"step-{step}" / "progress.json").write_text(json.dumps({"step": step, "inputs": INPUTS_OF_JOB}))


def test_checkpoints_become_states_and_come_back(training):
    work, state, directory = training
    for step in (2, 4, 6):
        checkpoint(directory, step)
        keep_newest(state, directory, kept=2)
    assert state.steps() == [4, 6]
    assert sorted(path.name for path in directory.iterdir()) == ["step-2", "step-4", "step-6"]  # the job's own
    shutil.rmtree(directory)
    restore(state, directory, work, INPUTS_OF_JOB)
    assert [path.name for path in directory.iterdir()] == ["step-6"]
    assert (directory / "step-6" / "model.safetensors").read_text() == "weights after 6"


def test_a_state_is_stored_without_hard_links(training, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(1, "Operation not permitted")

    work, state, directory = training
    checkpoint(directory, 2)
    monkeypatch.setattr(os, "link", refuse)
    keep_newest(state, directory, kept=2)
    shutil.rmtree(directory)
    restore(state, directory, work, INPUTS_OF_JOB)
    assert (directory / "step-2" / "model.safetensors").read_text() == "weights after 2"


def test_a_newer_checkpoint_of_a_killed_run_is_not_replaced(training):
    work, state, directory = training
    checkpoint(directory, 2)
    keep_newest(state, directory, kept=2)
    checkpoint(directory, 4)
    restore(state, directory, work, INPUTS_OF_JOB)
    assert sorted(path.name for path in directory.iterdir()) == ["step-2", "step-4"]


def test_a_damaged_state_is_set_aside_for_the_one_before(training):
    work, state, directory = training
    for step in (2, 4):
        checkpoint(directory, step)
        keep_newest(state, directory, kept=2)
    newest = max(Path(work.store.root).glob("state/*/step-4/*/model.safetensors"))
    assert newest.samefile(directory / "step-4" / "model.safetensors")  # so the job's own is damaged with it
    newest.write_text("weights after 5")
    restore(state, directory, work, INPUTS_OF_JOB)
    assert [path.name for path in directory.iterdir()] == ["step-2"]


def test_states_trained_from_other_inputs_are_dropped(training):
    work, state, directory = training
    checkpoint(directory, 2)
    keep_newest(state, directory, kept=2)
    restore(state, directory, work, INPUTS_OF_JOB | {"base": "remade with other bytes"})
    assert state.steps() == []
    assert not directory.exists()


def test_a_store_that_fails_once_is_tried_again(training, monkeypatch):
    """Clients of object stores raise errors that are no OSError."""
    _, state, directory = training
    checkpoint(directory, 2)
    save, failures = state.save, [RuntimeError("EndpointConnectionError")]

    def fail_once(*arguments, **options):
        if failures:
            raise failures.pop()
        save(*arguments, **options)

    monkeypatch.setattr(state, "save", fail_once)
    lines = []
    with states_kept(state, directory, 2, lines.append):
        wait_until(state.steps)
    assert state.steps() == [2]
    assert "tried again: EndpointConnectionError" in lines[0]


@pytest.mark.parametrize("how", [LaunchError, KeyboardInterrupt])
def test_what_a_job_saved_at_its_very_end_is_stored(training, how):
    """The next run may be on another machine."""
    _, state, directory = training

    def preempted():
        with states_kept(state, directory, 2, print):
            checkpoint(directory, 4)
            raise how("preempted")

    with pytest.raises(how, match="preempted"):
        preempted()
    assert state.steps() == [4]


def test_a_staging_directory_that_can_not_be_removed_fails_no_committed_stage(run, tmp_path, caplog):
    def make(work):
        (work.output / "data.txt").write_text("made")
        staging = work.output.parent
        staging.rename(tmp_path / "elsewhere")
        staging.symlink_to(tmp_path / "elsewhere")  # rmtree refuses it, also for root
        return {}

    caplog.set_level("INFO", "longrecipe")
    assert settle(run, "merge", INPUTS, make).status == "ran"
    assert "could not be removed" in caplog.text
    assert settle(run, "merge", INPUTS, make).status == "hit"


def test_a_source_that_changes_while_it_is_read_commits_nothing(run, tmp_path):
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "a.txt").write_text("old")
    recipe = run.recipe.model_copy(
        update={"corpus": run.recipe.corpus.model_copy(update={"sources": (CorpusSourceSection(path=str(documents)),)})}
    )
    changed = Run(recipe=recipe, store=run.store)
    corpus = sources_reference(recipe.corpus.sources, run.open_store())

    def make(work):
        (documents / "a.txt").write_text("new text")
        (work.output / "data.txt").write_text("of the new text")
        return {}

    with pytest.raises(CorpusError, match="changed while stage tokenize read it"):
        settle(changed, "tokenize", {"base": reference("base"), "corpus": corpus}, make)


def test_a_lost_lease_stops_the_job(training):
    work, state, directory = training
    checkpoint(directory, 2)
    other = Path(work.store.root) / "state" / work.key[:16] / "lease.json"

    def train():
        with states_kept(state, directory, 2, print) as stop:
            work.lease._lost = "taken over by a test"
            assert stop.wait(PATIENCE)
            raise LaunchError("the job ended with code 143")

    with pytest.raises(LeaseLostError):
        train()
    assert other.exists()
