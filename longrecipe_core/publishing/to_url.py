"""A model's files into a directory on any filesystem, so that half of a model is never taken for a whole one."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from longrecipe_core.artifacts.digest import digest_file
from longrecipe_core.artifacts.exclusive import create_exclusively, fsync_directory, read_if_present
from longrecipe_core.artifacts.exclusive import replace as replace_file
from longrecipe_core.artifacts.location import Location
from longrecipe_core.errors import PublishError
from longrecipe_core.publishing.files import PublishedFile

MARKER = ".longrecipe-publish.json"
"""Says that somebody is publishing, and what; there from the first file to the last."""
LAST = "config.json"
"""Without it no reader takes a directory for a model."""


def send(files: Sequence[PublishedFile], place: Location, *, replace: bool, log: Callable[[str], None]) -> int:
    """Copy the files; returns how many were sent. Given again after an interruption, goes on.

    config.json is removed first and written last. `replace` removes what an earlier model had and this one has not,
    hidden files excepted, and only from a directory that holds a model.

    Raises:
        PublishError: The place holds something else, can't be written, or other bytes arrived.
    """
    try:
        return _send(files, place, replace, log)
    except OSError as error:
        raise PublishError(f"{place.uri}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _send(files: Sequence[PublishedFile], place: Location, replace: bool, log: Callable[[str], None]) -> int:
    plan = json.dumps({file.name: file.sha256 for file in files}, sort_keys=True).encode()
    marker = read_if_present(place.fs, (place / MARKER).path)
    found = _names(place)
    if marker is None and found:
        if found == {file.name for file in files} and all(_arrived(place, file) for file in files):
            log(f"{place.uri}: holds this model already")
            return 0
        _refuse(place, found, replace)
    elif marker not in (None, plan) and not replace:
        raise PublishError(
            f"{place.uri}: another model was begun to be published there; --replace puts this one in its place"
        )
    if place.local:
        os.makedirs(place.path, exist_ok=True)
    if marker is None:
        if not create_exclusively(place.fs, (place / MARKER).path, plan):
            raise PublishError(f"{place.uri}: somebody else has just begun to publish there")
    elif marker != plan:
        replace_file(place.fs, (place / MARKER).path, plan)
    by_name = {file.name: file for file in files}
    # First of all, so that the place is no model until it is a whole one.
    for name in sorted(found, key=lambda name: name != LAST):
        if name == LAST or name not in by_name:
            place.fs.rm_file((place / name).path)
    sent = 0
    for file in (*(file for file in files if file.name != LAST), by_name[LAST]):
        if file.name in found and file.name != LAST and _arrived(place, file):
            continue
        log(f"{place.uri}: sends {file.name}, {file.size:,} bytes")
        _put(file, place)
        if not _arrived(place, file):
            raise PublishError(f"{place.uri}/{file.name}: other bytes arrived than were sent; publish again")
        sent += 1
    place.fs.rm_file((place / MARKER).path)
    return sent


def _refuse(place: Location, found: Iterable[str], replace: bool) -> None:
    """Raise PublishError unless what is there is a model that may be replaced."""
    names = sorted(found)
    some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    if LAST not in names:
        raise PublishError(f"{place.uri}: holds something that is no model ({some}); name another place")
    if not replace:
        raise PublishError(f"{place.uri}: holds another model ({some}); --replace puts this one in its place")


def _names(place: Location) -> set[str]:
    """Files below a place, without hidden ones."""
    prefix = f"{place.path}/"
    names = {str(path).removeprefix(prefix) for path in place.fs.find(place.path)}
    return {name for name in names if not any(part.startswith(".") for part in name.split("/"))}


def _arrived(place: Location, file: PublishedFile) -> bool:
    """Whether the bytes at the place are the file's. All are read."""
    try:
        return digest_file(place.fs, (place / file.name).path) == (file.sha256, file.size)
    except FileNotFoundError:
        return False


def _put(file: PublishedFile, place: Location) -> None:
    path = (place / file.name).path
    if not place.local:
        place.fs.put_file(str(file.path), path)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with open(file.path, "rb") as source, open(partial, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 22)
        copy.flush()
        os.fsync(copy.fileno())
    os.replace(partial, target)
    fsync_directory(str(target.parent))
