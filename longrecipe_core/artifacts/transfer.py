"""Directories of files into a store and out of it, every byte hashed on the way."""

import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from longrecipe_core.artifacts.digest import (
    BLOCK_BYTES,
    DigestMemory,
    digest_file,
    read_blocks,
    remembered_digest,
)
from longrecipe_core.artifacts.exclusive import fsync_directory
from longrecipe_core.artifacts.location import Location
from longrecipe_core.artifacts.manifest import FileEntry
from longrecipe_core.errors import ArtifactDamagedError, StoreError

logger = logging.getLogger(__name__)

_LOCAL = LocalFileSystem()


def put_directory(directory: Path, target: Location, *, consume: bool = False) -> tuple[FileEntry, ...]:
    """Bring every file under a local directory to `target`, which must be new. Local files end fsynced.

    `consume`: the caller gives the files away. On the same local filesystem they are then moved, not copied
    (a checkpoint may be larger than the free space). After any error the directory is as it was and the
    target is gone; after a kill in the middle of moving, the files are in two places. Raises StoreError for
    an empty directory, linked directories and special files.
    """
    names = _plain_files(directory)
    if target.local:
        os.makedirs(target.path)
        if consume and _movable(directory, names, target):
            return _move(directory, names, target)
    try:
        if not target.local:
            return tuple(_put_remote(directory, name, target) for name in names)
        entries = tuple(_copy(directory / name, Path(target.path, name), name) for name in names)
        _fsync_tree(target.path)
        return entries
    except BaseException:
        remove_tree(target)
        raise


def get_directory(source: Location, files: Sequence[FileEntry], into: Path) -> None:
    """Download files to the new (or empty) local directory `into`: verified, all or none.

    Raises ArtifactDamagedError naming every bad file, OSError (ENOTEMPTY) when `into` has been filled
    meanwhile.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    temporary = into.with_name(f".{into.name}.{uuid.uuid4().hex}.partial")
    temporary.mkdir()
    try:
        problems = []
        for entry in files:
            path = temporary / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                found = _get_file(source.fs, f"{source.path}/{entry.name}", path)
            except FileNotFoundError:
                problems.append(f"{entry.name}: missing")
                continue
            problems += _differences(entry, *found)
        refuse_damage(source.uri, problems)
        os.rename(temporary, into)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find_damage(place: Location, files: Sequence[FileEntry], memory: DigestMemory | None) -> list[str]:
    """One line per file that is missing or whose size or digest isn't the listed one."""
    problems = []
    for entry in files:
        path = f"{place.path}/{entry.name}"
        try:
            # The size alone tells most damage without reading.
            size = os.path.getsize(path) if place.local else int(place.fs.size(path))
            if size == entry.size:
                problems += _differences(entry, *remembered_digest(place.fs, path, memory))
            else:
                problems += _differences(entry, "", size)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            problems.append(f"{entry.name}: missing")
    return problems


def find_strays(place: Location, files: Sequence[FileEntry]) -> list[str]:
    """Names of files that lie in the directory but aren't listed, sorted."""
    prefix = place.path + "/"
    present = {str(path).removeprefix(prefix) for path in place.fs.find(place.path)}
    return sorted(present - {entry.name for entry in files})


def refuse_damage(uri: str, problems: Sequence[str]) -> None:
    """Raises ArtifactDamagedError when there are problems."""
    if problems:
        raise ArtifactDamagedError(f"{uri}: {len(problems)} bad file(s): " + "; ".join(problems))


def remove_tree(place: Location) -> None:
    """Remove a directory that no manifest names. What can't be removed only takes space, so that is
    logged.
    """
    try:
        if place.local:
            shutil.rmtree(place.path)
        else:
            place.fs.rm(place.path, recursive=True)
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("%s could not be removed and only takes space now: %s", place.uri, error)


def _plain_files(directory: Path) -> list[str]:
    names = []
    for parent, directories, files in os.walk(directory, onerror=_reraise):
        for name in directories:
            if os.path.islink(os.path.join(parent, name)):
                raise StoreError(f"{parent}/{name}: a linked directory can't be stored; put the files there")
        for name in files:
            path = os.path.join(parent, name)
            if not os.path.isfile(path):
                raise StoreError(f"{path}: neither a file nor a link to one")
            names.append(Path(path).relative_to(directory).as_posix())
    if not names:
        raise StoreError(f"{directory}: no files to store")
    return sorted(names)


def _reraise(error: OSError) -> None:
    raise error


def _put_remote(directory: Path, name: str, target: Location) -> FileEntry:
    path = f"{target.path}/{name}"
    sha256, size = digest_file(_LOCAL, str(directory / name))
    target.fs.put_file(str(directory / name), path)
    arrived = int(target.fs.size(path))
    if arrived != size:
        raise OSError(f"{target.uri}/{name}: {arrived} of {size} bytes arrived")
    return FileEntry(name=name, size=size, sha256=sha256)


def _movable(directory: Path, names: list[str], target: Location) -> bool:
    device = os.stat(target.path).st_dev
    # A link would be moved as a link, and its file stay where nobody guards it.
    return all(os.lstat(directory / name).st_dev == device and not (directory / name).is_symlink() for name in names)


def _move(directory: Path, names: list[str], target: Location) -> tuple[FileEntry, ...]:
    entries: list[FileEntry] = []
    moved: list[str] = []
    try:
        for name in names:
            sha256, size = digest_file(_LOCAL, str(directory / name))
            with open(directory / name, "rb") as file:
                os.fsync(file.fileno())
            entries.append(FileEntry(name=name, size=size, sha256=sha256))
        for name in names:
            Path(target.path, name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(directory / name, Path(target.path, name))
            moved.append(name)
        _fsync_tree(target.path)
    except BaseException:
        for name in moved:
            os.rename(Path(target.path, name), directory / name)
        remove_tree(target)  # last: not reached while any of the caller's files is still in there
        raise
    return tuple(entries)


def _copy(source: Path, target: Path, name: str) -> FileEntry:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with open(source, "rb") as reader, open(target, "xb") as writer:
        while block := reader.read(BLOCK_BYTES):
            digest.update(block)
            size += writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return FileEntry(name=name, size=size, sha256=digest.hexdigest())


def _get_file(fs: AbstractFileSystem, path: str, into: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with open(into, "xb") as writer:
        for block in read_blocks(fs, path):
            digest.update(block)
            size += writer.write(block)
    return digest.hexdigest(), size


def _differences(entry: FileEntry, sha256: str, size: int) -> list[str]:
    if size != entry.size:
        return [f"{entry.name}: {size} bytes instead of {entry.size}"]
    if sha256 != entry.sha256:
        return [f"{entry.name}: sha256 {sha256[:12]}… instead of {entry.sha256[:12]}…"]
    return []


def _fsync_tree(path: str) -> None:
    for directory, _, _ in os.walk(path, topdown=False):
        fsync_directory(directory)
    fsync_directory(os.path.dirname(path))
