import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, digest, fingerprint, lineage, transfer
from longrecipe_core.errors import (
    ArtifactDamagedError,
    ArtifactMissingError,
    FingerprintError,
    ManifestError,
    StoreError,
)

FILES = {"config.json": b"{}", "deep/er/weights.bin": bytes(range(256)) * 40, "empty": b""}
KEY = fingerprint({"stage": "tokenize"})


def staging(directory: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    root = str(tmp_path / "root") if request.param == "local" else f"memory://{uuid.uuid4().hex}/store"
    return ArtifactStore(root, cache=tmp_path / "cache")


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "root"), cache=tmp_path / "cache")


def commit(
    store: ArtifactStore,
    directory: Path,
    key: str = KEY,
    extra: dict[str, bytes] | None = None,
    **more: object,
) -> ArtifactRef:
    arguments: dict = {"recipe": {"a": 1}, "seconds": 1.5, **more}
    filled = staging(directory)
    for name, data in (extra or {}).items():
        (filled / name).parent.mkdir(parents=True, exist_ok=True)
        (filled / name).write_bytes(data)
    return store.commit("tokens", key, filled, **arguments)


def test_commit_find_fetch(store: ArtifactStore, tmp_path: Path) -> None:
    assert store.find("tokens", KEY) is None
    assert store.manifest_digest("tokens", KEY) is None
    ref = commit(store, tmp_path / "staging", metrics={"tokens": 7, "loss": float("nan"), "rows": [1.5]})
    manifest = store.find("tokens", KEY)
    assert manifest is not None
    assert store.ref(manifest) == ref
    assert ref.uri == f"{store.root}/tokens/{KEY[:16]}/{manifest.attempt}"
    assert {entry.name: entry.size for entry in manifest.files} == {name: len(data) for name, data in FILES.items()}
    assert (manifest.recipe, manifest.seconds) == ({"a": 1}, 1.5)
    assert manifest.metrics == {"tokens": 7, "loss": "nan", "rows": [1.5]}
    assert manifest.versions["python"] == sys.version.split()[0]
    assert store.verify(ref) == []
    assert content(store.fetch(ref)) == FILES
    assert content(tmp_path / "staging") == FILES
    for uri in (ref, ref.uri, ref.uri.rsplit("/", 1)[0]):
        assert store.manifest_of(uri) == manifest
    assert ArtifactStore.containing(ref.uri).root == store.root
    assert ArtifactStore.containing(ref.uri.rsplit("/", 1)[0]).root == store.root


def test_a_local_uri_is_a_path_and_the_data_is_not_copied(local: ArtifactStore, tmp_path: Path) -> None:
    ref = commit(local, tmp_path / "staging")
    assert local.fetch(ref) == Path(ref.uri)
    assert ArtifactStore(f"file://{local.root}").root == local.root


def test_the_first_writer_wins(store: ArtifactStore, tmp_path: Path) -> None:
    first = commit(store, tmp_path / "one")
    second = store.commit("tokens", KEY, staging(tmp_path / "two", {"x": b"y"}), recipe={}, seconds=0)
    assert second == first
    assert content(store.fetch(second)) == FILES


def test_the_loser_of_a_close_race_removes_its_attempt(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longrecipe_core.artifacts import store as module

    original, won = module.put_directory, []

    def other_first(*args: object, **kwargs: object) -> object:
        done = original(*args, **kwargs)  # type: ignore[arg-type]
        monkeypatch.setattr(module, "put_directory", original)
        won.append(commit(store, tmp_path / "other"))
        return done

    monkeypatch.setattr(module, "put_directory", other_first)
    assert commit(store, tmp_path / "staging") == won[0]
    place = store.place("tokens", KEY)
    names = {path.split("/")[-1] for path in place.fs.ls(place.path, detail=False)}
    assert names == {"manifest.json", won[0].uri.rsplit("/", 1)[1]}


def test_consume_moves_and_survives_an_error(
    local: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = staging(tmp_path / "staging")
    inode = (source / "config.json").stat().st_ino
    original = os.rename

    def fail(a: object, b: object) -> None:
        if str(a).endswith("empty"):
            raise OSError("no")
        original(a, b)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(transfer.os, "rename", fail)
        with pytest.raises(OSError, match="no"):
            local.commit("tokens", KEY, source, recipe={}, seconds=0, consume=True)
    assert content(source) == FILES
    ref = local.commit("tokens", KEY, source, recipe={}, seconds=0, consume=True)
    assert content(local.fetch(ref)) == FILES
    assert content(source) == {}
    assert (Path(ref.uri) / "config.json").stat().st_ino == inode
    assert len(os.listdir(Path(ref.uri).parent)) == 2


def test_links_to_files_are_stored_as_files(local: ArtifactStore, tmp_path: Path) -> None:
    source = staging(tmp_path / "staging")
    (tmp_path / "outside").write_bytes(b"linked")
    (source / "link").symlink_to(tmp_path / "outside")
    ref = local.commit("tokens", KEY, source, recipe={}, seconds=0, consume=True)
    assert not (Path(ref.uri) / "link").is_symlink()
    assert content(local.fetch(ref)) == {**FILES, "link": b"linked"}


def test_what_cannot_be_stored_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(StoreError, match="no files"):
        store.commit("tokens", KEY, tmp_path / "none", recipe={}, seconds=0)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "d").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="linked directory"):
        store.commit("tokens", KEY, tmp_path / "linked", recipe={}, seconds=0)
    for kind, key in (("state", KEY), ("../x", KEY), ("tokens", "abc"), ("Tokens", KEY)):
        with pytest.raises(StoreError):
            store.commit(kind, key, staging(tmp_path / "s"), recipe={}, seconds=0)
    with pytest.raises(FingerprintError):
        store.commit("tokens", KEY, staging(tmp_path / "s"), recipe={"x": {1}}, seconds=0)
    assert store.find("tokens", KEY) is None


def test_a_collision_of_prefixes_is_an_error(store: ArtifactStore, tmp_path: Path) -> None:
    commit(store, tmp_path / "s")
    other = KEY[:16] + "0" * 48
    with pytest.raises(StoreError, match="first 16 digits"):
        store.find("tokens", other)
    with pytest.raises(StoreError, match="first 16 digits"):
        commit(store, tmp_path / "s", other)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(where=st.integers(0, 256 * 40 - 1), bit=st.integers(0, 7))
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_any_flipped_bit_is_noticed(kind: str, where: int, bit: int, tmp_path: Path) -> None:
    root = f"{tmp_path}/{uuid.uuid4().hex}" if kind == "local" else f"memory://{uuid.uuid4().hex}"
    store = ArtifactStore(root, cache=tmp_path / "cache")
    ref = commit(store, tmp_path / "s")
    store.verify(ref)
    path = f"{ref.uri}/deep/er/weights.bin"
    fs = store.location.fs
    data = bytearray(fs.cat_file(path))
    data[where] ^= 1 << bit
    fs.pipe_file(path, bytes(data))
    for call in (store.verify, store.fetch):
        with pytest.raises(ArtifactDamagedError, match=r"1 bad file\(s\): deep/er/weights.bin: sha256"):
            call(ref)


def test_a_flipped_bit_is_noticed_although_the_digest_was_remembered(
    local: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "RACY_NS", -(10**18))
    ref = commit(local, tmp_path / "s")
    local.verify(ref)
    path = Path(ref.uri) / "deep/er/weights.bin"
    times = path.stat()
    while True:  # until the kernel's coarse clock has gone on
        with path.open("r+b") as file:
            file.write(b"\xff")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        if path.stat().st_ctime_ns != times.st_ctime_ns:
            break
    with pytest.raises(ArtifactDamagedError, match=r"weights\.bin: sha256"):
        local.verify(ref)


def test_memory_spares_reading_and_can_be_switched_off(
    local: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "RACY_NS", -(10**18))
    ref = commit(local, tmp_path / "s")
    read: list[str] = []
    original = digest.digest_file
    monkeypatch.setattr(digest, "digest_file", lambda fs, path: (read.append(path), original(fs, path))[1])
    for memory, total in ((True, 3), (True, 3), (False, 6)):
        local.verify(ref, memory=memory)
        assert len(read) == total


def test_all_damage_is_told_by_name(store: ArtifactStore, tmp_path: Path) -> None:
    ref = commit(store, tmp_path / "s")
    fs = store.location.fs
    fs.rm_file(f"{ref.uri}/empty")
    fs.pipe_file(f"{ref.uri}/config.json", b"{ }")
    with pytest.raises(ArtifactDamagedError, match=r"2 bad.*config.json: 3 bytes instead of 2; empty: missing"):
        store.verify(ref)


def test_strays_are_told_but_are_no_damage(store: ArtifactStore, tmp_path: Path) -> None:
    ref = commit(store, tmp_path / "s")
    store.location.fs.pipe_file(f"{ref.uri}/deep/stray.arrow", b"x")
    assert store.verify(ref) == ["deep/stray.arrow"]


def test_set_aside_then_made_again(store: ArtifactStore, tmp_path: Path) -> None:
    ref = commit(store, tmp_path / "s")
    store.set_aside(ref, "a bit flipped")
    assert store.find("tokens", KEY) is None
    with pytest.raises(ArtifactMissingError):
        store.fetch(ref)
    again = commit(store, tmp_path / "s")
    assert again.uri != ref.uri
    store.set_aside(ref, "seen late by another process")
    assert content(store.fetch(again)) == FILES
    with pytest.raises(ArtifactMissingError, match="made anew"):
        store.fetch(ref)
    place = store.place("tokens", KEY)
    names = [path.split("/")[-1] for path in place.fs.ls(place.path, detail=False)]
    assert len([name for name in names if name.startswith("manifest.damaged-")]) == 2
    assert place.fs.cat_file(f"{ref.uri}/config.json") == b"{}"


def test_an_unreadable_manifest_is_damage_and_can_be_set_aside(store: ArtifactStore, tmp_path: Path) -> None:
    commit(store, tmp_path / "s")
    place = store.place("tokens", KEY)
    path = f"{place.path}/manifest.json"
    good = place.fs.cat_file(path)
    for bad in (
        b"",
        good[:-20],
        b"[]",
        good.replace(b"config.json", b"../../evil"),
        good.replace(b'"seconds"', b'"s"'),
    ):
        place.fs.pipe_file(path, bad)
        with pytest.raises(ArtifactDamagedError, match=r"manifest\.json"):
            store.find("tokens", KEY)
    store.set_aside(ArtifactRef(uri=place.uri, kind="tokens", fingerprint=KEY), "unreadable")
    assert store.find("tokens", KEY) is None


def test_a_manifest_of_a_newer_release_is_named(store: ArtifactStore, tmp_path: Path) -> None:
    ref = commit(store, tmp_path / "s")
    place = store.place("tokens", KEY)
    value = json.loads(place.fs.cat_file(f"{place.path}/manifest.json"))
    value["schema_version"], value["new"] = 2, "?"
    place.fs.pipe_file(f"{place.path}/manifest.json", json.dumps(value).encode())
    for call in (lambda: store.find("tokens", KEY), lambda: store.set_aside(ref, "no")):
        with pytest.raises(ManifestError, match="schema_version 2"):
            call()


def test_a_damaged_download_is_replaced(tmp_path: Path) -> None:
    store = ArtifactStore(f"memory://{uuid.uuid4().hex}", cache=tmp_path / "cache")
    path = store.fetch(commit(store, tmp_path / "s"))
    ref = store.ref(store.find("tokens", KEY))  # type: ignore[arg-type]
    (path / "config.json").write_bytes(b"[]")
    assert store.fetch(ref) == path
    assert content(path) == FILES
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_lineage_and_changed_inputs(store: ArtifactStore, tmp_path: Path) -> None:
    outside = ArtifactRef(uri="hf://meta/llama", kind="base", fingerprint="0" * 64)
    tokens = commit(store, tmp_path / "s", inputs=[outside])
    index = store.commit("index", fingerprint("i"), tmp_path / "s", inputs=[tokens], recipe={}, seconds=0)
    manifest = store.manifest_of(index)
    assert manifest.inputs[0].manifest_sha256 == store.manifest_digest("tokens", KEY)
    assert store.changed_inputs(manifest) == []
    tree = lineage(store, index)
    assert [tree.kind, tree.inputs[0].kind, tree.inputs[0].inputs[0].uri] == [
        "index",
        "tokens",
        "hf://meta/llama",
    ]
    assert len(tree.lines()) == 3
    store.set_aside(tokens, "test")
    assert store.changed_inputs(manifest) == [tokens.uri]
    assert lineage(store, index).inputs[0].changed

    # Made again with the same data, and with another account of how: nothing has changed for those who used it.
    (tmp_path / "again").mkdir()
    again = commit(store, tmp_path / "again", inputs=[outside], extra={"about/log.txt": b"slower this time"})
    assert store.changed_inputs(manifest) == []
    assert not lineage(store, index).inputs[0].changed
    store.set_aside(again, "test")
    (tmp_path / "other").mkdir()
    commit(store, tmp_path / "other", inputs=[outside], extra={"more.json": b"{}"})
    assert store.changed_inputs(manifest) == [tokens.uri]
    assert lineage(store, index).inputs[0].changed


def test_roots_with_credentials_are_refused_without_repeating_them(tmp_path: Path) -> None:
    for root in ("s3://key:hunter2@bucket/x", "https://host/x?sig=hunter2", "simplecache::s3://u:hunter2@b"):
        with pytest.raises(StoreError) as caught:
            ArtifactStore(root, cache=tmp_path)
        assert "hunter2" not in str(caught.value)


def test_a_uri_elsewhere_is_not_an_artifact_of_this_store(store: ArtifactStore, tmp_path: Path) -> None:
    ref = commit(store, tmp_path / "s")
    other = ArtifactStore(str(tmp_path / "other"), cache=tmp_path)
    for uri in (ref.uri, "/", str(tmp_path), f"{other.root}/tokens/{KEY[:16]}"):
        with pytest.raises(ArtifactMissingError):
            other.manifest_of(uri)


WRITER = """
import sys
from pathlib import Path
from longrecipe_core.artifacts import ArtifactStore
root, cache, source, key = sys.argv[1:]
store = ArtifactStore(root, Path(cache))
print("ready", flush=True)
sys.stdin.readline()
print(store.commit("tokens", key, Path(source), recipe={}, seconds=0).uri)
"""


def test_concurrent_processes_agree_on_one_attempt(local: ArtifactStore, tmp_path: Path) -> None:
    writers = []
    for i in range(3):
        source = staging(tmp_path / f"s{i}", {f"file{n}": os.urandom(100_000) for n in range(10)})
        command = [sys.executable, "-c", WRITER, local.root, str(tmp_path / "cache"), str(source), KEY]
        writers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for one in writers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in writers:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    uris = {one.communicate()[0].strip() for one in writers}
    assert len(uris) == 1
    uri = uris.pop()
    assert sorted(os.listdir(Path(uri).parent)) == sorted([Path(uri).name, "manifest.json"])
    manifest = local.find("tokens", KEY)
    assert manifest is not None
    local.verify(local.ref(manifest))


def test_memory_urls_with_and_without_slash_are_one_store(tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    ref = commit(ArtifactStore(f"memory://{name}", cache=tmp_path / "c"), tmp_path / "s")
    assert ArtifactStore(f"memory:///{name}/", cache=tmp_path / "c").find("tokens", KEY) is not None
    with fsspec.open(f"{ref.uri}/config.json", "rb") as file:
        assert file.read() == b"{}"
