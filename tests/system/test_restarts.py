"""The stage's own training, whose ranks are killed: it comes to its end by itself, and nothing is lost."""

import os
import signal
import threading

import pytest
import yaml
from launched_jobs import make_material, processes_of, ranks_of
from polling import wait_until
from safetensors.numpy import load_file
from training_material import TRAIN

from longrecipe_core.artifacts import ArtifactStore, Lease, TrainingState, fingerprint
from longrecipe_core.errors import JobKilledError, LaunchError
from longrecipe_core.recipe import Recipe
from longrecipe_core.training.job import DataSpec
from longrecipe_core.training.metrics_file import read_metrics
from tasks.run import Run, Work
from tasks.stages import STAGES
from tasks.training_run import train

STEPS = 240


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def stage(material, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return make_stage(material, tmp_path)


def make_stage(material, tmp_path):
    """Runs stage `extend` of two ranks on tiny data; the lines it logs, and where."""
    training = {"learning_rate": 3e-3, "schedule": "linear", "steps": STEPS, "global_batch": 4, "precision": "fp32"}
    store = ArtifactStore(str(tmp_path / "store"), cache=tmp_path / "cache")
    key = fingerprint("training")
    lines = []

    def run(**changes):
        launch = {"processes": 2, "threads": 1, "checkpoint_every": 10, **changes.pop("launch", {})}
        recipe = Recipe.parse(
            yaml.safe_dump(
                {
                    "name": "x",
                    "model": {"path": str(material / "model")},
                    "context": {"target_length": 2 * TRAIN, "train_length": TRAIN},
                    "corpus": {"sources": [{"path": "documents"}]},
                    "extend": {**training, **changes},
                    "replay": {"sources": [{"path": "replay"}]},
                    "anneal": {"learning_rate": 1e-4},
                    "launch": launch,
                }
            )
        )
        output = tmp_path / "staging" / "output"
        output.mkdir(parents=True, exist_ok=True)
        with Lease(store, key) as lease:
            work = Work(
                Run(recipe=recipe, store=store.root), store, STAGES["extend"], key, {}, output, lines.append, lease
            )
            data = DataSpec(kind="windows", tokens=material / "tokens", length=TRAIN, samples=4 * STEPS)
            try:
                return train(work, start=material / "model", data=data, training=recipe.extend, rope=None)
            finally:
                lease.check()  # it is ours still
                run.states = TrainingState(store, key, lease).steps()

    run.lines, run.directory = lines, tmp_path / "staging"
    return run


def kill_ranks(directory, after, done):
    """kill -9 one rank at each of these numbers of steps taken; tells which."""
    metrics = directory / "logs" / "metrics.jsonl"
    for number, steps in enumerate(after):
        wait_until(lambda steps=steps: len(read_metrics(metrics)) >= steps, f"for step {steps}", every=0.02)
        found = ranks_of(directory)
        os.kill(found[number % 2].pid, signal.SIGKILL)
        done.append(number % 2)
        wait_until(lambda pid=found[number % 2].pid: not os.path.exists(f"/proc/{pid}"), "for the rank to go")


def test_ranks_killed_again_and_again_change_no_bit(stage, material, tmp_path):
    """Three deaths with `restarts: 1`, each after a newer checkpoint than the last one."""
    killed = []
    killer = threading.Thread(target=kill_ranks, args=(stage.directory, (35, 85, 145), killed))
    killer.start()
    told = stage(launch={"restarts": 1})
    killer.join()
    assert killed == [0, 1, 0]
    again = [line for line in stage.lines if "starts again after step" in line]
    assert len(again) == 3
    for rank, line in zip(killed, again, strict=True):
        assert line.startswith("extend: training job ")
        assert f"rank {rank} was killed by SIGKILL" in line
        assert line.endswith("restart 1 of launch.restarts 1")
    rows = read_metrics(stage.directory / "logs" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert told["steps"] == STEPS
    assert (stage.directory / "output" / "model.safetensors").exists()
    assert stage.states  # stored while it ran
    assert not processes_of(stage.directory)
    undisturbed = make_stage(material, tmp_path / "whole")
    undisturbed(launch={"restarts": 0})
    one, other = (load_file(d / "output" / "model.safetensors") for d in (stage.directory, undisturbed.directory))
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_one_death_too_many_ends_the_stage_whose_states_stay(stage):
    killed = []
    killer = threading.Thread(target=kill_ranks, args=(stage.directory, (35,), killed))
    killer.start()
    with pytest.raises(JobKilledError, match="rank 0 was killed by SIGKILL"):
        stage(launch={"restarts": 0})
    killer.join()
    assert max(stage.states) >= 20  # of 35 steps and more, the checkpoint before the last that was begun
    assert not processes_of(stage.directory)


def test_an_error_of_the_job_s_own_is_not_tried_again(stage):
    with pytest.raises(LaunchError, match="TrainingError: step ") as raised:
        stage(learning_rate=1e30, clip=1e30)
    assert not isinstance(raised.value, JobKilledError)
    assert not any("starts again" in line for line in stage.lines)
