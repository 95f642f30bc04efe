"""A model's files into a directory on any filesystem, so that half of a model is never taken for a whole one."""

import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from longrecipe_core.artifacts.digest import digest_file
from longrecipe_core.artifacts.exclusive import create_exclusively, fsync_directory, read_if_present
from longrecipe_core.artifacts.exclusive import replace as replace_file
from longrecipe_core.artifacts.location import Location
from longrecipe_core.errors import PublishError
from longrecipe_core.publishing.files import PublishedFile

MARKER = ".longrecipe-publish.json"
"""Says that somebody is publishing: who, which files, and which an earlier model had that may go; there from the first
file to the last."""
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
    _refuse_store(place)
    plan = {file.name: file.sha256 for file in files}
    begun = _marker(place)
    found = _names(place)
    if begun is None and found:
        if found == plan.keys() and all(_arrived(place, file) for file in files):
            log(f"{place.uri}: holds this model already")
            return 0
        _refuse(place, found, replace)
    if begun is not None:
        if begun["files"] != plan and not replace:
            raise PublishError(
                f"{place.uri}: another model was begun to be published there; --replace puts this one in its place"
            )
        foreign = sorted(found - plan.keys() - begun["files"].keys() - set(begun["replaces"]))
        if foreign:
            raise PublishError(
                f"{place.uri}: {', '.join(foreign[:3])} came there since publishing began, which was interrupted; take "
                f"what is yours away"
            )
    if place.local:
        os.makedirs(place.path, exist_ok=True)
    told = {"writer": uuid.uuid4().hex, "files": plan, "replaces": sorted(found - plan.keys())}
    marker = json.dumps(told, sort_keys=True).encode()
    if begun is None:
        if not create_exclusively(place.fs, (place / MARKER).path, marker):
            raise PublishError(f"{place.uri}: somebody else has just begun to publish there")
    else:
        replace_file(place.fs, (place / MARKER).path, marker)
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


def _marker(place: Location) -> dict[str, Any] | None:
    """What the marker says, None where there is none."""
    text = read_if_present(place.fs, (place / MARKER).path)
    if text is None:
        return None
    try:
        told: dict[str, Any] = json.loads(text)
        return {"files": dict(told["files"]), "replaces": list(told["replaces"])}
    except (ValueError, TypeError, KeyError) as error:
        raise PublishError(f"{place.uri}/{MARKER}: can't be read; remove it where nobody publishes there") from error


def _refuse_store(place: Location) -> None:
    """Raise PublishError for a place inside an artifact: what is there never changes, and may be the source itself."""
    above = place.path
    for _ in range(3):  # an attempt lies beside its manifest
        if read_if_present(place.fs, f"{above}/manifest.json") is not None:
            raise PublishError(f"{place.uri}: is an artifact of a store, and stays as it is; name another place")
        above = posixpath.dirname(above)


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
