import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longrecipe_core.artifacts import ArtifactStore, Lease, TrainingState, fingerprint
from longrecipe_core.errors import ArtifactDamagedError, ArtifactMissingError, LeaseLostError, StoreError

KEY = fingerprint("state")


def make_store(kind: str, tmp_path: Path) -> ArtifactStore:
    root = f"{tmp_path}/{uuid.uuid4().hex}" if kind == "local" else f"memory://{uuid.uuid4().hex}"
    return ArtifactStore(root, cache=tmp_path / "cache")


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return make_store(request.param, tmp_path)


@pytest.fixture
def state(store: ArtifactStore) -> TrainingState:
    return TrainingState(store, KEY)


def staging(tmp_path: Path, text: str) -> Path:
    directory = tmp_path / f"staging-{uuid.uuid4().hex}"
    (directory / "rank").mkdir(parents=True)
    (directory / "model.safetensors").write_text(text)
    (directory / "rank" / "0.json").write_text(text * 2)
    return directory


def loaded(state: TrainingState, step: int, tmp_path: Path) -> str:
    into = tmp_path / uuid.uuid4().hex
    state.load(step, into)
    text = (into / "model.safetensors").read_text()
    assert (into / "rank" / "0.json").read_text() == text * 2
    return text


def manifest_path(store: ArtifactStore, step: int) -> str:
    return f"{store.location.path}/state/{KEY[:16]}/step-{step}/manifest.json"


def test_save_load_prune_clear(state: TrainingState, store: ArtifactStore, tmp_path: Path) -> None:
    assert (state.steps(), state.latest()) == ([], None)
    for step in (1, 2, 10):
        state.save(step, staging(tmp_path, f"step {step}"))
    assert (state.steps(), state.latest()) == ([2, 10], 10)
    assert store.location.fs.exists(manifest_path(store, 10))
    assert not store.location.fs.exists(manifest_path(store, 1))
    assert loaded(state, 2, tmp_path) == "step 2"
    with pytest.raises(ArtifactMissingError, match=r"step-1: no complete training state; there are \[2, 10\]"):
        state.load(1, tmp_path / "none")
    state.clear()
    assert state.steps() == []


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(st.integers(0, 30), min_size=1, max_size=6), keep=st.integers(1, 3))
def test_the_newest_steps_stay(steps: list[int], keep: int, tmp_path: Path) -> None:
    state = TrainingState(make_store("memory", tmp_path), KEY)
    expected: dict[int, str] = {}
    for at, step in enumerate(steps):
        state.save(step, staging(tmp_path, f"save {at}"), keep=keep)
        expected[step] = f"save {at}"
        upto = sorted(one for one in expected if one <= step)
        for old in upto[:-keep]:
            del expected[old]
    assert state.steps() == sorted(expected)
    for step, text in expected.items():
        assert loaded(state, step, tmp_path) == text


def test_a_step_saved_again_replaces_the_first(state: TrainingState, store: ArtifactStore, tmp_path: Path) -> None:
    state.save(5, staging(tmp_path, "one"))
    state.save(5, staging(tmp_path, "two"), consume=True)
    assert loaded(state, 5, tmp_path) == "two"
    fs, directory = store.location.fs, manifest_path(store, 5).rsplit("/", 1)[0]
    assert len(fs.ls(directory, detail=False)) == 2


def test_incomplete_steps_do_not_count_and_are_pruned(
    state: TrainingState, store: ArtifactStore, tmp_path: Path
) -> None:
    state.save(1, staging(tmp_path, "one"))
    state.save(2, staging(tmp_path, "two"))
    store.location.fs.rm_file(manifest_path(store, 2))
    assert state.latest() == 1
    state.save(3, staging(tmp_path, "three"))
    assert state.steps() == [1, 3]
    directory = manifest_path(store, 2).rsplit("/", 1)[0]
    assert store.location.fs.find(directory) == []


def test_damage_is_noticed_and_the_older_step_serves(
    state: TrainingState, store: ArtifactStore, tmp_path: Path
) -> None:
    for step in (1, 2):
        state.save(step, staging(tmp_path, f"step {step}"))
    fs = store.location.fs
    path = next(p for p in fs.find(manifest_path(store, 2).rsplit("/", 1)[0]) if p.endswith("safetensors"))
    fs.pipe_file(path, b"step 3")
    into = tmp_path / "into"
    with pytest.raises(ArtifactDamagedError, match=r"model.safetensors: sha256"):
        state.load(2, into)
    assert not into.exists()
    state.set_aside(2, "damaged")
    assert state.latest() == 1
    state.save(2, staging(tmp_path, "again"))
    assert state.steps() == [1, 2]


def test_load_wants_an_empty_directory(state: TrainingState, tmp_path: Path) -> None:
    state.save(1, staging(tmp_path, "x"))
    (tmp_path / "empty").mkdir()
    state.load(1, tmp_path / "empty")
    with pytest.raises(StoreError, match="not an empty directory"):
        state.load(1, tmp_path / "empty")


def test_without_its_lease_nothing_is_written(store: ArtifactStore, tmp_path: Path) -> None:
    lease = Lease(store, KEY)
    state = TrainingState(store, KEY, lease)
    with pytest.raises(LeaseLostError):
        state.save(1, staging(tmp_path, "x"))
    with lease:
        state.save(1, staging(tmp_path, "x"))
        state.clear()
        state.save(2, staging(tmp_path, "y"))
    with pytest.raises(LeaseLostError):
        state.clear()
    assert state.steps() == [2]
