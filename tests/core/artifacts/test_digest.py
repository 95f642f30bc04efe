import hashlib
import json
import multiprocessing
import os
import time
import uuid
from pathlib import Path

import fsspec
import pytest

from longrecipe_core.artifacts import DigestMemory, digest_file, digest_url
from longrecipe_core.artifacts import digest as digest_module
from longrecipe_core.errors import InputMissingError


def age(path: Path, seconds: float = 3600) -> None:
    """Pretend the file has not changed for an hour (mtime; ctime can't be set)."""
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DigestMemory:
    monkeypatch.setattr(digest_module, "RACY_NS", -(10**18))  # no file is too fresh, not even by ctime
    return DigestMemory(tmp_path / "memory.sqlite")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files that were really read."""
    seen: list[str] = []
    original = digest_module.digest_file
    monkeypatch.setattr(digest_module, "digest_file", lambda fs, path: (seen.append(path), original(fs, path))[1])
    return seen


def test_a_file_is_its_sha256_on_any_filesystem(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    file = tmp_path / "file"
    file.write_bytes(data)
    url = f"memory://{uuid.uuid4().hex}/file"
    fsspec.filesystem("memory").pipe_file(url, data)
    expected = hashlib.sha256(data).hexdigest()
    assert digest_url(file) == digest_url(str(file)) == digest_url(f"file://{file}") == digest_url(url) == expected
    assert digest_file(fsspec.filesystem("file"), str(file)) == (expected, len(data))


def test_a_tree_is_names_and_digests(tmp_path: Path) -> None:
    for root in ("one", "two"):
        (tmp_path / root / "deep").mkdir(parents=True)
        (tmp_path / root / "b.txt").write_text("b")
        (tmp_path / root / "deep" / "a.txt").write_text("a")
    rows = [[name, hashlib.sha256(text).hexdigest()] for name, text in (("b.txt", b"b"), ("deep/a.txt", b"a"))]
    expected = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert digest_url(tmp_path / "one") == digest_url(tmp_path / "two") == expected
    assert digest_url(f"{tmp_path}/one/**/*.txt") == digest_url(f"{tmp_path}/one/**") == expected
    url = f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").put(f"{tmp_path}/one/", url, recursive=True)
    assert digest_url(url) == digest_url(f"{url}/**/*.txt") == expected
    (tmp_path / "two" / "b.txt").rename(tmp_path / "two" / "c.txt")
    assert digest_url(tmp_path / "two") != expected


def test_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "real")
    before = digest_url(tmp_path / "tree")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "tree")
    assert digest_url(tmp_path / "tree") == before
    (tmp_path / "real" / "x").write_text("y")
    assert digest_url(tmp_path / "tree") != before


@pytest.mark.parametrize("name", ["none", "none/*.txt", "empty", "empty/*"])
def test_nothing_is_an_error_without_secrets(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissingError, match="no file there"):
        digest_url(tmp_path / name)


def test_an_unchanged_file_is_read_once(tmp_path: Path, memory: DigestMemory, reads: list[str]) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    first = digest_url(file, memory=memory)
    assert digest_url(file, memory=memory) == first
    assert digest_url(file, memory=DigestMemory(memory.path)) == first
    assert len(reads) == 1


def test_a_flipped_bit_of_the_same_size_is_noticed(tmp_path: Path, memory: DigestMemory) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    age(file)
    before = file.stat()
    first = digest_url(file, memory=memory)
    time.sleep(0.02)  # past the tick of the kernel's coarse clock; what lies within it is the racy case below
    with file.open("r+b") as handle:
        handle.write(b"y")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # only ctime tells now
    assert digest_url(file, memory=memory) != first


def test_a_fresh_file_is_not_remembered(tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_module, "RACY_NS", 10**15)
    memory, file = DigestMemory(tmp_path / "memory.sqlite"), tmp_path / "file"
    file.write_bytes(b"x")
    assert digest_url(file, memory=memory) == digest_url(file, memory=memory)
    assert len(reads) == 2


def test_an_unusable_memory_only_costs_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "memory.sqlite").write_bytes(b"not a database at all" * 100)
    (tmp_path / "file").write_bytes(b"x")
    assert digest_url(tmp_path / "file", memory=DigestMemory(tmp_path / "memory.sqlite")) == digest_url(
        tmp_path / "file"
    )
    assert "no memory of digests" in caplog.text


def hammer(path: Path, worker: int) -> None:
    memory = DigestMemory(path)
    for i in range(30):
        memory.remember(f"place {i}", f"stamp {worker}", f"{worker} {i}")


def test_concurrent_processes_share_a_memory(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=hammer, args=(tmp_path / "memory.sqlite", i)) for i in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert [one.exitcode for one in workers] == [0, 0, 0]
    memory = DigestMemory(tmp_path / "memory.sqlite")
    for i in range(30):
        found = [memory.recall(f"place {i}", f"stamp {worker}") for worker in range(3)]
        assert [one for one in found if one] == [f"{at} {i}" for at, one in enumerate(found) if one]
        assert len([one for one in found if one]) == 1


def test_places_are_not_stored_in_clear(tmp_path: Path) -> None:
    memory = DigestMemory(tmp_path / "memory.sqlite")
    memory.remember("https://host/file?signature=SECRET", "1", "2")
    assert b"SECRET" not in memory.path.read_bytes()
