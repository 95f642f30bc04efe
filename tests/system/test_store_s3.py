"""The store against a real S3 server on loopback."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from polling import PATIENCE, wait_until
from s3_server import SECRET, S3Server, s3, s3_server  # noqa: F401

from longrecipe_core.artifacts import (
    ArtifactRef,
    ArtifactStore,
    Lease,
    RunRecords,
    TrainingState,
    digest_url,
    exclusive,
    new_record,
)
from longrecipe_core.artifacts.fingerprint import fingerprint
from longrecipe_core.artifacts.garbage import Roots, find_rubbish, remove
from longrecipe_core.artifacts.pointers import Pointer, move_pointer, pointer_names, read_pointer
from longrecipe_core.corpus import source_digest
from longrecipe_core.errors import ArtifactDamagedError, ArtifactMissingError, LeaseLostError
from longrecipe_core.recipe import CorpusSourceSection

KEY = fingerprint("s3")
FILES = {"config.json": b"{}", "deep/weights.bin": bytes(range(256)) * 8000, "empty": b""}


@pytest.fixture(scope="session")
def bucket(s3_server: S3Server) -> str:  # noqa: F811
    return s3_server.make_bucket("artifacts")


@pytest.fixture
def store(s3: S3Server, bucket: str, tmp_path: Path) -> ArtifactStore:  # noqa: F811
    return ArtifactStore(f"{bucket}/{uuid.uuid4().hex}", cache=tmp_path / "cache")


def staging(directory: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def commit(store: ArtifactStore, directory: Path, files: dict[str, bytes] = FILES) -> ArtifactRef:
    return store.commit("tokens", KEY, staging(directory, files), recipe={"a": 1}, seconds=1)


def names(store: ArtifactStore) -> set[str]:
    """What holds files, and the manifest. (This server keeps showing directories that have become empty.)"""
    place = store.place("tokens", KEY)
    return {str(path).removeprefix(f"{place.path}/").split("/")[0] for path in place.fs.find(place.path)}


def test_round_trip(store: ArtifactStore, tmp_path: Path) -> None:
    assert store.find("tokens", KEY) is None
    ref = commit(store, tmp_path / "s")
    assert ref.uri.startswith(f"{store.root}/tokens/{KEY[:16]}/")
    assert store.root.startswith("s3://artifacts/")
    assert store.verify(ref) == []
    path = store.fetch(ref)
    assert content(path) == FILES
    assert store.fetch(ref) == path
    assert store.manifest_of(ref.uri) == store.find("tokens", KEY)
    assert ArtifactStore.containing(ref.uri).root == store.root
    manifest = store.location.fs.cat_file(f"{store.place('tokens', KEY).path}/manifest.json")
    assert SECRET.encode() not in manifest
    assert b"tester" not in manifest
    assert digest_url(ref.uri, memory=store.digests) == digest_url(tmp_path / "s")


def test_the_first_writer_wins(store: ArtifactStore, tmp_path: Path) -> None:
    first = commit(store, tmp_path / "s")
    assert commit(store, tmp_path / "t", {"x": b"y"}) == first
    path = store.place("tokens", KEY).path
    assert not exclusive.create_exclusively(store.location.fs, f"{path}/manifest.json", b"mine")


def test_a_put_that_arrived_but_was_not_answered_counts(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = store.location.fs
    original = fs.pipe_file

    def unanswered(path: str, data: bytes, **more: object) -> None:
        original(path, data, **more)
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(fs, "pipe_file", unanswered)
        ref = commit(store, tmp_path / "s")
    assert content(store.fetch(ref)) == FILES


def test_a_flipped_bit_is_noticed_although_remembered(store: ArtifactStore, tmp_path: Path) -> None:
    ref = commit(store, tmp_path / "s")
    store.verify(ref)
    store.verify(ref)
    data = bytearray(FILES["deep/weights.bin"])
    data[12345] ^= 1
    store.location.fs.pipe_file(f"{ref.uri}/deep/weights.bin", bytes(data))
    store.location.fs.rm_file(f"{ref.uri}/empty")
    for call in (store.verify, store.fetch):
        with pytest.raises(ArtifactDamagedError, match=r"2 bad.*weights.bin: sha256.*empty: missing"):
            call(ref)
    store.set_aside(ref, "flipped")
    assert store.find("tokens", KEY) is None
    again = commit(store, tmp_path / "s")
    assert content(store.fetch(again)) == FILES
    with pytest.raises(ArtifactMissingError, match="made anew"):
        store.verify(ref)


WRITER = """
import sys
from pathlib import Path
from longrecipe_core.artifacts import ArtifactStore
root, cache, source, key = sys.argv[1:]
store = ArtifactStore(root, Path(cache))
store.find("tokens", key)  # connected
print("ready", flush=True)
sys.stdin.readline()
print(store.commit("tokens", key, Path(source), recipe={}, seconds=0).uri, flush=True)
"""


def start(store: ArtifactStore, source: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, store.root, str(store.cache), str(source), KEY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_concurrent_processes_agree_on_one_attempt(store: ArtifactStore, tmp_path: Path) -> None:
    files = [{f"file{n}": os.urandom(200_000) for n in range(5)} for _ in range(2)]
    writers = [start(store, staging(tmp_path / f"s{i}", one)) for i, one in enumerate(files)]
    for one in writers:
        go(one)
    uris = {one.communicate()[0].strip() for one in writers}
    assert len(uris) == 1
    uri = uris.pop()
    assert names(store) == {"manifest.json", uri.rsplit("/", 1)[1]}
    assert content(store.fetch(ArtifactRef(uri=uri, kind="tokens", fingerprint=KEY))) in files


def test_kill_the_writer_at_random_times(store: ArtifactStore, tmp_path: Path) -> None:
    """Readers see nothing or all. Times are random, the outcome asserted holds at any of them."""
    source = staging(tmp_path / "s", {f"file{n}": bytes([n]) * 100_000 for n in range(8)})
    draws = random.Random(7)
    for _ in range(5):
        writer = start(store, source)
        go(writer)
        time.sleep(draws.uniform(0, 0.25))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        manifest = store.find("tokens", KEY)
        if manifest is not None:
            ref = store.ref(manifest)
            assert content(store.fetch(ref)) == content(source)
            store.set_aside(ref, "the next trial wants a free place")
    ref = store.commit("tokens", KEY, source, recipe={}, seconds=0)
    assert content(store.fetch(ref)) == content(source)


def test_training_state(store: ArtifactStore, tmp_path: Path) -> None:
    state = TrainingState(store, KEY)
    assert state.latest() is None
    for step in (1, 2, 10, 10):
        state.save(step, staging(tmp_path / "s"))
    assert state.steps() == [2, 10]
    state.load(10, tmp_path / "into")
    assert content(tmp_path / "into") == FILES
    state.set_aside(10, "test")
    assert state.latest() == 2
    state.clear()
    assert state.steps() == []
    left = store.location.fs.find(f"{store.location.path}/state", detail=True).values()
    assert sum(one["size"] for one in left) == 0


def test_swap_is_conditional(store: ArtifactStore) -> None:
    fs, path = store.location.fs, f"{store.location.path}/record"
    assert not exclusive.swap(fs, path, b"old", b"new")
    assert exclusive.create_exclusively(fs, path, b"old")
    assert exclusive.swap(fs, path, b"old", b"new")
    assert not exclusive.swap(fs, path, b"old", b"newer")
    assert fs.cat_file(path) == b"new"


def test_a_swap_does_not_overwrite_what_came_in_between(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, path = store.location.fs, f"{store.location.path}/record"
    fs.pipe_file(path, b"old")
    original = fs.pipe_file

    def late(path: str, data: bytes, **more: object) -> None:
        original(path, b"faster")  # after we have looked, before our PUT arrives
        original(path, data, **more)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "pipe_file", late)
        assert not exclusive.swap(fs, path, b"old", b"new")
    assert fs.cat_file(path) == b"faster"


def test_of_many_swaps_one_wins(store: ArtifactStore) -> None:
    fs, path = store.location.fs, f"{store.location.path}/record"
    for trial in range(5):
        fs.pipe_file(path, b"old")
        barrier, won = threading.Barrier(4), []

        def work(name: bytes) -> None:
            barrier.wait()  # noqa: B023
            if exclusive.swap(fs, path, b"old", name):
                won.append(name)  # noqa: B023

        threads = [threading.Thread(target=work, args=(f"{trial} {i}".encode(),)) for i in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert won == [fs.cat_file(path)]


def test_lease_waits_takes_over_and_is_lost(store: ArtifactStore) -> None:
    path = f"{store.location.path}/state/{KEY[:16]}/lease.json"
    fs = store.location.fs
    first = Lease(store, KEY, "first", heartbeat=0.05, stale_after=10_000)
    first.acquire()
    waiting = threading.Event()
    second = Lease(store, KEY, "second", heartbeat=0.05, stale_after=10_000, on_wait=lambda _: waiting.set())
    thread = threading.Thread(target=second.acquire, daemon=True)
    thread.start()
    assert waiting.wait(PATIENCE)
    first.check()
    first.release()
    thread.join(PATIENCE)
    second.check()

    # Another machine takes it over from the living.
    def taken() -> bool:
        present = fs.cat_file(path)
        other = json.dumps(json.loads(present) | {"token": "t", "owner": "elsewhere", "host": "x"}).encode()
        return exclusive.swap(fs, path, present, other)

    wait_until(taken)
    with pytest.raises(LeaseLostError, match="elsewhere"):
        wait_until(second.check)
    second.release()
    # And nobody renews that one.
    with Lease(store, KEY, "third", heartbeat=0.05, stale_after=0.5) as third:
        third.check()


def test_wrong_credentials_are_told_without_the_secret(
    s3: S3Server,  # noqa: F811
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fsspec

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-right-one")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(OSError) as caught:  # noqa: PT011
        ArtifactStore(f"{bucket}/x", cache=tmp_path).find("tokens", KEY)
    assert "not-the-right-one" not in str(caught.value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_an_unchanged_source_is_looked_at_with_listings_only(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is content; a listing with the same ETags saves reading it, and a request for each file."""
    fs, place = store.location.fs, f"{store.location.path}/documents"
    for number in range(20):
        fs.pipe_file(f"{place}/{number}.txt", b"text %d" % number)
    requests: list[str] = []
    original = type(fs)._call_s3

    async def counted(self: object, method: str, *arguments: object, **options: object) -> object:
        requests.append(method)
        return await original(self, method, *arguments, **options)

    monkeypatch.setattr(type(fs), "_call_s3", counted)
    source = CorpusSourceSection(path=f"s3://{place}")

    def look() -> tuple[str, int, int]:
        requests.clear()
        digest = source_digest(source, store.digests)
        return digest, requests.count("get_object"), requests.count("head_object")

    first, read, _ = look()
    assert read == 20
    again, read, asked = look()
    assert (again, read) == (first, 0)
    assert asked < 5  # whether the place is a file or a directory
    fs.pipe_file(f"{place}/7.txt", b"other")
    changed, read, _ = look()
    assert changed != first
    assert read == 1
    fs.pipe_file(f"{place}/7.txt", b"text 7")
    assert look()[0] == first


def test_a_pointer_is_moved_by_one_of_two(store: ArtifactStore, tmp_path: Path) -> None:
    uri = commit(store, tmp_path / "s").uri
    first, second, late = (
        Pointer(refs=(uri,), model=uri, evaluation=uri, fingerprints={}, promoted="now", run=run)
        for run in ("first", "second", "late")
    )
    assert read_pointer(store, "demo") is None
    assert move_pointer(store, "demo", None, first)
    assert not move_pointer(store, "demo", None, late)
    assert move_pointer(store, "demo", first, second)
    assert not move_pointer(store, "demo", first, late)
    assert read_pointer(store, "demo") == second
    assert pointer_names(store) == ["demo"]


def test_runs_and_garbage(store: ArtifactStore, tmp_path: Path) -> None:
    """A record per run, artifacts by age, and removal: what a root leads to stays, the rest goes, manifest first."""
    old, kept = (commit_as(store, tmp_path / name, name) for name in ("old", "kept"))
    young = commit_as(store, tmp_path / "young", "young", [kept])
    assert [store.ref(manifest) for manifest in store.newest("tokens")] == [young, kept, old]
    records = RunRecords(store)
    for run_id in ("20260101T000000000000Z-00000000", "20260102T000000000000Z-00000000"):
        records.write(new_record(run_id, "flow", "x", {"seed": 1}))
        records.write_recipe(run_id, "seed: 1\n")
    assert records.ids() == ["20260102T000000000000Z-00000000", "20260101T000000000000Z-00000000"]
    assert [record.id for record in records.all()] == records.ids()
    records.remove(records.ids()[0])
    assert records.ids() == ["20260101T000000000000Z-00000000"]
    later = datetime.now(UTC) + timedelta(days=2)
    [rubbish] = find_rubbish(store, Roots.of([young.uri]), lambda manifest: False, now=later)
    assert (rubbish.place.uri, rubbish.bytes) == (old.uri, sum(map(len, FILES.values())))
    assert not remove(store, rubbish, lambda: False)
    assert store.verify(old) == []
    assert remove(store, rubbish, lambda: True)
    assert store.find("tokens", old.fingerprint) is None
    assert find_rubbish(store, Roots.of([young.uri]), lambda manifest: False, now=later) == []
    assert not any(store.location.fs.exists(f"{rubbish.place.path}/{name}") for name in FILES)
    assert [store.verify(ref, memory=False) for ref in (kept, young)] == [[], []]


def commit_as(store: ArtifactStore, directory: Path, name: str, inputs: Sequence[ArtifactRef] = ()) -> ArtifactRef:
    with Lease(store, fingerprint(name)):
        return store.commit("tokens", fingerprint(name), staging(directory), inputs=inputs, recipe={}, seconds=1)
