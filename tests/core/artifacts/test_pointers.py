import errno
import json
import os
import threading
import uuid
from pathlib import Path

import pytest

from longrecipe_core.artifacts import ArtifactStore, exclusive
from longrecipe_core.artifacts.pointers import Pointer, move_pointer, pointer_names, read_pointer
from longrecipe_core.errors import ArtifactDamagedError, StoreError


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    root = str(tmp_path / "root") if request.param == "local" else f"memory://{uuid.uuid4().hex}/store"
    return ArtifactStore(root, cache=tmp_path / "cache")


def pointer(store: ArtifactStore, run: str, **more: object) -> Pointer:
    uris = {name: f"{store.root}/{name}/{'0' * 16}/{run}" for name in ("checkpoint", "evaluation", "report")}
    return Pointer(
        refs=tuple(uris.values()),
        model=uris["checkpoint"],
        evaluation=uris["evaluation"],
        fingerprints={"merge": "0" * 64},
        promoted="2026-01-01",
        run=run,
        **more,
    )


def test_a_pointer_is_moved_only_from_where_it_was_seen(store: ArtifactStore) -> None:
    first, second, third = (pointer(store, name) for name in ("a", "b", "c"))
    assert read_pointer(store, "demo") is None
    assert pointer_names(store) == []
    assert not move_pointer(store, "demo", first, second)  # there is none
    assert move_pointer(store, "demo", None, first)
    assert not move_pointer(store, "demo", None, second)
    assert move_pointer(store, "demo", first, second)
    assert not move_pointer(store, "demo", first, third)
    assert read_pointer(store, "demo") == second
    assert pointer_names(store) == ["demo"]


def test_of_many_that_saw_the_same_one_wins(store: ArtifactStore) -> None:
    present = None
    for trial in range(5):
        barrier, won = threading.Barrier(4), []

        def work(new: Pointer, seen: Pointer | None) -> None:
            barrier.wait()  # noqa: B023
            if move_pointer(store, "demo", seen, new):
                won.append(new)  # noqa: B023

        threads = [
            threading.Thread(target=work, args=(pointer(store, f"{trial}-{number}"), present)) for number in range(4)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        present = read_pointer(store, "demo")
        assert won == [present]


def test_a_store_that_is_reached_by_another_path_has_the_same_pointers(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    there, here = (ArtifactStore(tmp_path / name, cache=tmp_path / "cache") for name in ("there", "here"))
    assert move_pointer(there, "demo", None, pointer(there, "a"))
    assert read_pointer(here, "demo") == pointer(here, "a")
    assert move_pointer(here, "demo", read_pointer(here, "demo"), pointer(here, "b"))
    assert read_pointer(there, "demo") == pointer(there, "b")


def test_what_is_no_pointer_is_named(store: ArtifactStore) -> None:
    move_pointer(store, "demo", None, pointer(store, "a"))
    place = store.location / "pointers" / "latest-demo.json"
    assert json.loads(place.fs.cat_file(place.path))["refs"] == list(pointer(store, "a").refs)
    place.fs.pipe_file(place.path, b"{}")
    with pytest.raises(ArtifactDamagedError, match=r"latest-demo\.json: not a manifest: refs"):
        read_pointer(store, "demo")
    with pytest.raises(StoreError, match="no recipe's name"):
        read_pointer(store, "../demo")


def test_without_hard_links_the_first_writer_wins_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source)

    monkeypatch.setattr(os, "link", refuse)
    store = ArtifactStore(tmp_path / "root", cache=tmp_path / "cache")
    barrier, won = threading.Barrier(4), []

    def work(new: Pointer) -> None:
        barrier.wait()
        if move_pointer(store, "demo", None, new):
            won.append(new)

    threads = [threading.Thread(target=work, args=(pointer(store, str(number)),)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert won == [read_pointer(store, "demo")]
    assert sorted(path.name for path in (tmp_path / "root" / "pointers").iterdir()) == [
        "latest-demo.json",
        "latest-demo.json.lock",
    ]
    path = str(tmp_path / "root" / "record")
    assert exclusive.create_exclusively(store.location.fs, path, b"mine")
    assert not exclusive.create_exclusively(store.location.fs, path, b"other")
    assert not exclusive.move_aside(store.location.fs, path, b"what was read before", f"{path}.aside", "test")
    assert Path(path).read_bytes() == b"mine"
