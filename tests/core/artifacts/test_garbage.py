"""What nobody refers to: found, told, and removed without harm to what is in use."""

import os
import shutil
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, Lease, TrainingState, fingerprint
from longrecipe_core.artifacts.garbage import Roots, find_rubbish, remove
from longrecipe_core.errors import ArtifactMissingError

KINDS = ("tokens", "index", "checkpoint")
TOMORROW = datetime.now(UTC) + timedelta(days=2)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> ArtifactStore:
    root = f"memory://garbage-{uuid.uuid4().hex}/store" if request.param == "memory" else str(tmp_path / "store")
    return ArtifactStore(root, cache=tmp_path / "cache")


def make(store: ArtifactStore, tmp_path: Path, name: str, inputs=(), kind="tokens", **more) -> ArtifactRef:
    """An artifact of 100 bytes, made under its lease as every stage's is."""
    directory = tmp_path / "made"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "data").write_text(name.ljust(100))
    with Lease(store, fingerprint(name)):
        return store.commit(kind, fingerprint(name), directory, inputs=inputs, recipe={"of": name}, seconds=1, **more)


def found(store, roots=(), may_be_hit=lambda manifest: False, now=TOMORROW):
    return find_rubbish(store, Roots.of(roots), may_be_hit, now=now)


def places(rubbish) -> set[str]:
    return {one.place.uri for one in rubbish}


def undisturbed() -> bool:
    return True


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), remote=st.booleans())
def test_what_a_root_leads_to_stays_whole_and_all_else_goes(tmp_path, data, remote):
    """Any acyclic graph and any roots; the oracle walks up the same graph."""
    top = tmp_path / uuid.uuid4().hex
    root = f"memory://garbage-{uuid.uuid4().hex}" if remote else str(top / "store")
    store = ArtifactStore(root, cache=top / "cache")
    refs, inputs = [], []
    for number in range(data.draw(st.integers(1, 7))):
        chosen = sorted(data.draw(st.sets(st.integers(0, number - 1), max_size=3))) if number else []
        kind = data.draw(st.sampled_from(KINDS))
        top.mkdir(exist_ok=True)
        refs.append(make(store, top, f"artifact {number}", [refs[one] for one in chosen], kind))
        inputs.append(chosen)
    roots = data.draw(st.sets(st.integers(0, len(refs) - 1)))
    kept: set[int] = set()
    for number in reversed(range(len(refs))):
        if number in roots or any(number in inputs[later] for later in kept):
            kept.add(number)
    rubbish = found(store, [refs[one].uri for one in roots])
    assert places(rubbish) == {ref.uri for number, ref in enumerate(refs) if number not in kept}
    assert {one.bytes for one in rubbish} <= {100}
    assert found(store, [refs[one].uri for one in roots], now=datetime.now(UTC)) == []
    for one in rubbish:
        assert remove(store, one, undisturbed)
    for number, ref in enumerate(refs):
        if number in kept:
            assert store.verify(ref, memory=False) == []
            assert store.changed_inputs(store.manifest_of(ref)) == []
        else:
            assert store.find(ref.kind, ref.fingerprint) is None
            assert store.location.fs.find((store.location / ref.kind / ref.fingerprint[:16]).path) == []
    assert found(store, [refs[one].uri for one in roots]) == []


def test_what_an_unfinished_run_may_hit_stays_with_its_inputs(store, tmp_path):
    first = make(store, tmp_path, "first")
    make(store, tmp_path, "second", [first], "index")
    other = make(store, tmp_path, "other")
    rubbish = found(store, may_be_hit=lambda manifest: manifest.recipe == {"of": "second"})
    assert places(rubbish) == {other.uri}


def test_what_a_young_artifact_was_made_from_stays(store, tmp_path):
    """No run's record may name it yet."""
    long_ago = datetime.now(UTC) - timedelta(days=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("longrecipe_core.artifacts.store.new_attempt", lambda: f"{long_ago:%Y%m%dT%H%M%S%f}Z-{'0' * 8}")
        patch.setattr("longrecipe_core.artifacts.store.utc_now", long_ago.isoformat)
        old, other = make(store, tmp_path, "old"), make(store, tmp_path, "other")
    make(store, tmp_path, "young", [old], "index")
    assert places(found(store, now=datetime.now(UTC))) == {other.uri}


def test_what_was_set_aside_goes_with_its_notes_and_a_pointers_attempt_stays(store, tmp_path):
    old = make(store, tmp_path, "one")
    store.set_aside(old, "a bit flipped")
    new = make(store, tmp_path, "one")
    assert found(store, [new.uri], now=datetime.now(UTC)) == []
    [rubbish] = found(store, [new.uri])
    assert (rubbish.place.uri, rubbish.why) == (old.uri, "was set aside")
    assert found(store, [old.uri]) == []  # a pointer names that very attempt
    assert remove(store, rubbish, undisturbed)
    left = store.place("tokens", new.fingerprint).children()
    assert sorted(left) == sorted(["manifest.json", new.uri.rsplit("/", 1)[1]])
    assert store.verify(new) == []


def test_an_attempt_without_manifest_goes(store, tmp_path):
    ref = make(store, tmp_path, "one")
    place = store.place("tokens", ref.fingerprint)
    place.fs.rm_file((place / "manifest.json").path)
    [rubbish] = found(store, [ref.uri.rsplit("/", 1)[0]])
    assert "no manifest" in rubbish.why
    assert remove(store, rubbish, undisturbed)
    assert place.children() == []


def test_what_can_not_be_read_stays(store, tmp_path):
    ref = make(store, tmp_path, "one")
    place = store.place("tokens", ref.fingerprint)
    place.fs.pipe_file((place / "manifest.json").path, b'{"schema_version": 2}')
    assert found(store) == []


def test_a_stage_that_is_worked_on_is_left(store, tmp_path):
    ref = make(store, tmp_path, "one")
    [rubbish] = found(store)
    with Lease(store, ref.fingerprint):
        assert not remove(store, rubbish, undisturbed)
    assert store.verify(ref) == []
    assert remove(store, rubbish, undisturbed)


def test_a_run_that_began_meanwhile_gets_the_manifest_back(store, tmp_path):
    ref = make(store, tmp_path, "one")
    [rubbish] = found(store)
    seen = []

    def a_run_began() -> bool:
        seen.append(store.find("tokens", ref.fingerprint))
        return False

    before = store.manifest_of(ref)
    assert not remove(store, rubbish, a_run_began)
    assert seen == [None]  # asked when nobody can find it any more
    assert store.manifest_of(ref) == before
    assert store.verify(ref, memory=False) == []


def test_states_of_stages_that_are_done_go_and_others_stay(store, tmp_path):
    done = make(store, tmp_path, "done")
    for name in ("done", "not done"):
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "weights").write_text("w")
        TrainingState(store, fingerprint(name)).save(3, tmp_path / "state", consume=True)
        shutil.rmtree(tmp_path / "state")
    [rubbish] = found(store, [done.uri])
    assert rubbish.why == "its stage is done"
    assert found(store, [done.uri], now=datetime.now(UTC)) == []
    assert remove(store, rubbish, undisturbed)
    assert TrainingState(store, done.fingerprint).steps() == []
    assert TrainingState(store, fingerprint("not done")).steps() == [3]


def test_staging_of_stages_that_are_done_goes_and_others_stay(store, tmp_path):
    done = make(store, tmp_path, "done")
    for key in (done.fingerprint, fingerprint("not done")):
        (store.staging / key[:16]).mkdir(parents=True)
        (store.staging / key[:16] / "job.json").write_text("12345")
    [rubbish] = found(store, [done.uri])
    assert (rubbish.place.path, rubbish.bytes) == (str(store.staging / done.fingerprint[:16]), 5)
    assert found(store, [done.uri], now=datetime.now(UTC)) == []
    assert remove(store, rubbish, undisturbed)
    assert os.listdir(store.staging) == [fingerprint("not done")[:16]]


def test_other_directories_in_a_store_are_nobodys_business(tmp_path):
    store = ArtifactStore(tmp_path / "store", cache=tmp_path / "cache")
    ref = make(store, tmp_path, "one")
    for name in ("bench/results", "tokens/notes", "tokens/0123456789abcdef", f"tokens/{ref.fingerprint[:16]}/mine"):
        (tmp_path / "store" / name).mkdir(parents=True)
        (tmp_path / "store" / name / "file").write_text("kept")
    [rubbish] = found(store)
    assert remove(store, rubbish, undisturbed)
    assert len(list((tmp_path / "store").rglob("file"))) == 4
    with pytest.raises(ArtifactMissingError):
        store.manifest_of(ref)
