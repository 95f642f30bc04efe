"""Pointers: `<root>/pointers/latest-NAME.json` leads from a name to the model that stands for it now."""

import os
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from longrecipe_core.artifacts.exclusive import create_exclusively, read_if_present, swap
from longrecipe_core.artifacts.location import Location
from longrecipe_core.artifacts.manifest import dump_record, load_record
from longrecipe_core.artifacts.store import POINTERS, ArtifactStore
from longrecipe_core.errors import StoreError


class Refused(BaseModel):
    """The newest model that was not promoted, and by which tolerances: it is not looked at again."""

    model_config = ConfigDict(frozen=True)

    model: str
    fingerprints: dict[str, str]
    tolerances: dict[str, JsonValue]
    reasons: tuple[str, ...]
    when: str
    run: str


class Pointer(BaseModel):
    """What a name stands for. All URIs are those of attempts' directories in the same store, as it is reached here.

    `refs` are the artifacts that must stay as long as the pointer does, `fingerprints` those of all stages that led
    to the model, `run` the id of the record of the run that promoted it, `previous` the model before.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    refs: tuple[str, ...]
    model: str
    evaluation: str
    fingerprints: dict[str, str]
    promoted: str
    run: str
    previous: str | None = None
    refused: Refused | None = None


def read_pointer(store: ArtifactStore, name: str) -> Pointer | None:
    """The pointer of this name, or None. Raises as `load_record`, StoreError for an impossible name."""
    return _read(store, _place(store, name))[0]


def move_pointer(store: ArtifactStore, name: str, present: Pointer | None, new: Pointer) -> bool:
    """Put `new` where `present` stands, or where nothing does; False when another run was faster.

    `new` must differ from what any other run writes: its time and run do.
    """
    place = _place(store, name)
    found, data = _read(store, place)
    if found != present:
        return False
    if place.local:
        os.makedirs(os.path.dirname(place.path), exist_ok=True)
    if data is None:
        return create_exclusively(place.fs, place.path, dump_record(new))
    return swap(place.fs, place.path, data, dump_record(new))


def pointer_names(store: ArtifactStore) -> list[str]:
    """All names that have a pointer, sorted."""
    found = (re.fullmatch(r"latest-(.+)\.json", name) for name in (store.location / POINTERS).children())
    return sorted(match[1] for match in found if match)


def _place(store: ArtifactStore, name: str) -> Location:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise StoreError(f"{name!r} is no recipe's name: lower-case letters, digits, and . _ - after the first")
    return store.location / POINTERS / f"latest-{name}.json"


def _read(store: ArtifactStore, place: Location) -> tuple[Pointer | None, bytes | None]:
    data = read_if_present(place.fs, place.path)
    if data is None:
        return None, None
    pointer = load_record(Pointer, data, place.uri)

    def here(uri: str) -> str:
        # Written where the store had another path, as a shared directory has on another machine.
        return "/".join([store.root.rstrip("/"), *uri.rsplit("/", 3)[1:]])

    moved = {
        "refs": tuple(map(here, pointer.refs)),
        "model": here(pointer.model),
        "evaluation": here(pointer.evaluation),
    }
    return pointer.model_copy(update=moved), data
