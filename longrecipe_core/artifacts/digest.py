"""Content digests of files and trees, and a memory that spares reading an unchanged file twice."""

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from longrecipe_core.artifacts.location import is_local, redact, uri_of
from longrecipe_core.errors import InputMissingError

logger = logging.getLogger(__name__)

BLOCK_BYTES = 8 * 2**20
# Timestamps are coarse: a file changed twice within one tick looks unchanged. Git calls such an entry racy.
RACY_NS = 2_000_000_000


class DigestMemory:
    """Remembers sha256 by place and stamp in a small SQLite file; safe for concurrent threads and processes.

    Places are stored hashed, since a URL may carry a secret. It is only a shortcut: when its file can't be
    used, that is logged and digests are computed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def recall(self, place: str, stamp: str) -> str | None:
        """The sha256 remembered for this place, if its stamp (size, times, inode or ETag) is still the
        same.
        """
        rows = self._execute("SELECT sha256 FROM digests WHERE place = ? AND stamp = ?", (_hashed(place), stamp))
        return str(rows[0][0]) if rows else None

    def remember(self, place: str, stamp: str, sha256: str) -> None:
        """Keep the digest of what lies at this place as long as its stamp stays."""
        self._execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (_hashed(place), stamp, sha256))

    def _execute(self, statement: str, values: tuple[str, ...]) -> list[Any]:
        # A connection per call: nothing to share between threads or to carry over a fork.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS digests (place TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT)"
                )
                return connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            logger.warning("no memory of digests at %s (%s): files are read again", self.path, error)
            return []


def read_blocks(fs: AbstractFileSystem, path: str) -> Iterator[bytes]:
    """The file's bytes in blocks of at most 8 MiB (`memory://`: in one)."""
    if isinstance(fs, MemoryFileSystem):
        yield fs.cat_file(path)  # its open files share one position
        return
    with open(path, "rb") if is_local(fs) else fs.open(path, "rb", block_size=BLOCK_BYTES) as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def digest_file(fs: AbstractFileSystem, path: str) -> tuple[str, int]:
    """(sha256 in hex, size in bytes) of one file, streamed. Raises FileNotFoundError."""
    digest, size = hashlib.sha256(), 0
    for block in read_blocks(fs, path):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def remembered_digest(
    fs: AbstractFileSystem, path: str, memory: DigestMemory | None, listed: Mapping[str, Any] | None = None
) -> tuple[str, int]:
    """As `digest_file`, reading the file only when the memory doesn't know it as it is now.

    `listed` is what a listing has just told of a remote file: it saves a request for each.
    """
    if memory is None:
        return digest_file(fs, path)
    place, (stamp, size, changed_ns) = uri_of(fs, path), _stamp(fs, path, listed)
    known = memory.recall(place, stamp) if stamp else None
    if known is not None:
        return known, size
    sha256, size = digest_file(fs, path)
    settled = changed_ns is None or time.time_ns() - changed_ns > RACY_NS
    # The same stamp before and after: what was read is what the stamp stands for.
    if stamp and settled and _stamp(fs, path)[0] == stamp:
        memory.remember(place, stamp, sha256)
    return sha256, size


def digest_url(url: str | os.PathLike[str], *, memory: DigestMemory | None = None) -> str:
    """Content digest of a file, directory tree or glob on any fsspec URL or local path, as 64 hex digits.

    A file's is its plain sha256, whatever its name. A tree's or glob's is the sha256 of the JSON list of
    (name relative to the directory, or to the glob's fixed part; sha256), sorted by name: moving the whole
    changes nothing, renaming a file inside does. Empty directories don't count.

    Raises InputMissingError when there is no file.
    """
    text = os.fspath(url)
    if "://" not in text:
        text = os.path.abspath(os.path.expanduser(text))
    fs, path = url_to_fs(text, use_listings_cache=False)
    if fs.isfile(path):
        return remembered_digest(fs, path, memory)[0]
    base, members = _members(fs, str(path).rstrip("/"))
    if not members:
        raise InputMissingError(f"{redact(text)}: no file there")
    rows = sorted(
        (os.path.relpath(one, base), remembered_digest(fs, one, memory, listed)[0]) for one, listed in members.items()
    )
    return hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()


def _members(fs: AbstractFileSystem, path: str) -> tuple[str, dict[str, Mapping[str, Any] | None]]:
    if fs.isdir(path):
        return path, dict.fromkeys(_walk_local(path)) if is_local(fs) else fs.find(path, detail=True)
    fixed = []
    for part in PurePosixPath(path).parts:
        if any(magic in part for magic in "*?["):
            break
        fixed.append(part)
    base = str(PurePosixPath(*fixed))
    if base == path:
        return path, {}
    return base, {name: info for name, info in fs.glob(path, detail=True).items() if info["type"] == "file"}


def _walk_local(path: str) -> Iterator[str]:
    # Follows links to directories, as reading the data would, but each directory once.
    seen: set[str] = set()
    for directory, names, files in os.walk(path, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        yield from (os.path.join(directory, name) for name in files)


def _stamp(fs: AbstractFileSystem, path: str, listed: Mapping[str, Any] | None = None) -> tuple[str, int, int | None]:
    """(what changes whenever the content does, or "" where nothing tells; size; time of change in ns if
    known).
    """
    if is_local(fs):
        status = os.stat(path)
        times = status.st_mtime_ns, status.st_ctime_ns
        return (
            f"{status.st_size} {times[0]} {times[1]} {status.st_dev} {status.st_ino}",
            status.st_size,
            max(times),
        )
    # Over HTTP a listing tells names only.
    info = listed if listed and listed.get("ETag") else fs.info(path)
    size = int(info.get("size") or 0)
    etag = str(info.get("ETag") or "")
    if not etag or etag.startswith("W/"):  # a weak ETag does not promise equal bytes
        return "", size, None
    return f"{size} {etag}", size, None


def _hashed(place: str) -> str:
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()
