"""What in a store nobody refers to any more, and its removal: manifest first, never anything in use."""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from longrecipe_core.artifacts.exclusive import create_exclusively, fsync_directory, read_if_present
from longrecipe_core.artifacts.lease import Lease, read_lease
from longrecipe_core.artifacts.location import Location, open_location
from longrecipe_core.artifacts.manifest import Manifest, is_attempt
from longrecipe_core.artifacts.store import MANIFEST, NO_KINDS, STATE, ArtifactStore
from longrecipe_core.artifacts.transfer import remove_tree
from longrecipe_core.errors import ArtifactDamagedError, ManifestError

GRACE = timedelta(days=1)
ATTEMPT = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}")
Place = tuple[str, str]
"""Kind and directory of an artifact, the latter the first 16 digits of its fingerprint."""


@dataclass(frozen=True)
class Roots:
    """What is kept whatever else: artifacts with all they were made from, and single attempts by their URIs."""

    artifacts: frozenset[Place]
    attempts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, uris: Iterable[str]) -> "Roots":
        """Of artifacts' URIs, those of attempts or of their parents; what is none of these keeps nothing."""
        kept = [uri.rstrip("/") for uri in uris]
        names = [uri.split("/") for uri in kept]
        places = [parts[-3:-1] if is_attempt(parts[-1]) else parts[-2:] for parts in names]
        return cls(frozenset((place[0], place[1]) for place in places if len(place) == 2), frozenset(kept))


@dataclass(frozen=True)
class Rubbish:
    """A directory that nobody refers to; `notes` are the manifests that name it, which go before it."""

    place: Location
    why: str
    bytes: int
    fingerprint: str | None = None
    notes: tuple[Location, ...] = ()


def find_rubbish(
    store: ArtifactStore,
    roots: Roots,
    may_be_hit: Callable[[Manifest], bool],
    *,
    now: datetime,
    grace: timedelta = GRACE,
) -> list[Rubbish]:
    """What could be removed: artifacts that no root leads to, what was set aside or never got a manifest, leftovers.

    Nothing younger than `grace` is listed, and nothing whose manifest can't be read.

    Args:
        store: The store.
        roots: What must stay.
        may_be_hit: Of an artifact, whether a run that is not finished could find it and take it as a stage's result.
        now: With time zone.
        grace: Age below which everything stays.
    """
    directories = list(_artifact_directories(store))
    manifests = {one.at: one.manifest for one in directories if one.manifest is not None}
    young = {at for at, manifest in manifests.items() if now - datetime.fromisoformat(manifest.created) < grace}
    hits = {at for at, manifest in manifests.items() if may_be_hit(manifest)}
    kept = _with_inputs(manifests, roots.artifacts | young | hits)
    found: list[Rubbish] = []
    for one in directories:
        found += one.rubbish(one.at in kept, roots.attempts, now - grace)
    done = {manifest.fingerprint[:16]: manifest.fingerprint for manifest in manifests.values()}
    found += _states(store, done, now - grace)
    found += _staging(store, done, now - grace)
    return found


def remove(store: ArtifactStore, rubbish: Rubbish, undisturbed: Callable[[], bool]) -> bool:
    """Remove it, unless its stage is being worked on. False when it was left.

    `undisturbed` is asked once more when the manifest is gone and the data is not: a run that began meanwhile either
    found the manifest, and then it comes back, or did not.
    """
    if rubbish.fingerprint is None:
        remove_tree(rubbish.place)
        return True
    lease = Lease(store, rubbish.fingerprint)
    if not lease.acquire(wait=False):
        return False
    try:
        removed = [(note, data) for note in rubbish.notes if (data := _take_away(note)) is not None]
        if not undisturbed():
            for note, data in removed:
                create_exclusively(note.fs, note.path, data)
            return False
        remove_tree(rubbish.place)
        if rubbish.place.local:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(os.path.dirname(rubbish.place.path))
        return True
    finally:
        lease.release()


@dataclass(frozen=True)
class _Directory:
    """One artifact's directory: its manifest, those set aside, its attempts with the bytes in each."""

    at: Place
    place: Location
    manifest: Manifest | None
    fingerprint: str | None
    aside: dict[str, list[str]]
    attempts: dict[str, int]
    unreadable: bool

    def rubbish(self, kept: bool, attempts: frozenset[str], before: datetime) -> Iterator[Rubbish]:
        if self.unreadable or self.fingerprint is None:
            return
        present = self.manifest.attempt if self.manifest else None
        for attempt, size in self.attempts.items():
            place, names = self.place / attempt, [MANIFEST] if attempt == present else self.aside.get(attempt, [])
            times = [attempt_time(found[0]) for name in [attempt, *names] if (found := ATTEMPT.search(name))]
            if place.uri in attempts or max(times) > before or (attempt == present and kept):
                continue
            why = "no kept run refers to it"
            if attempt != present:
                why = "was set aside" if names else "has no manifest: its commit did not end"
            yield Rubbish(place, why, size, self.fingerprint, tuple(self.place / name for name in names))


def attempt_time(name: str) -> datetime:
    """When an attempt began, by its name."""
    return datetime.strptime(name.split("-")[0], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)


def _artifact_directories(store: ArtifactStore) -> Iterator[_Directory]:
    for kind in store.location.children():
        if kind in NO_KINDS or not re.fullmatch(r"[a-z][a-z0-9_-]*", kind):
            continue
        for key, files in _grouped(store.location / kind).items():
            if re.fullmatch(r"[0-9a-f]{16}", key):
                yield _directory(store, kind, key, files)


def _directory(store: ArtifactStore, kind: str, key: str, files: dict[str, int]) -> _Directory:
    place = store.location / kind / key
    attempts: dict[str, int] = {}
    for name, size in files.items():
        attempt, slash, _ = name.partition("/")
        if slash and is_attempt(attempt):  # some servers go on listing a directory that has become empty
            attempts[attempt] = attempts.get(attempt, 0) + size
    unreadable = False
    manifest, fingerprint = None, None
    aside: dict[str, list[str]] = {}
    for name in files:
        if not re.fullmatch(rf"manifest(\.[a-z]+-{ATTEMPT.pattern})?\.json", name):
            continue
        data = read_if_present(place.fs, (place / name).path)
        if data is None:
            continue
        try:
            record = Manifest.from_json(data, (place / name).uri)
        except (ArtifactDamagedError, ManifestError):
            unreadable = unreadable or name == MANIFEST
            continue
        fingerprint = record.fingerprint
        if name == MANIFEST:
            manifest = record
        else:
            also = [other for other in (f"{name}.reason.txt",) if other in files]
            aside.setdefault(record.attempt, []).extend([name, *also])
    if fingerprint is None:
        fingerprint = _leased(store, key)
    return _Directory((kind, key), place, manifest, fingerprint, aside, attempts, unreadable)


def _leased(store: ArtifactStore, key: str) -> str | None:
    """The fingerprint behind a directory that has no manifest: a stage is only ever worked on under its lease."""
    record = read_lease(store, key)
    return record.fingerprint if record else None


def _with_inputs(manifests: dict[Place, Manifest], roots: Iterable[Place]) -> set[Place]:
    kept: set[Place] = set()
    waiting = list(roots)
    while waiting:
        at = waiting.pop()
        if at in kept:
            continue
        kept.add(at)
        if at in manifests:
            inputs = manifests[at].inputs
            waiting += [(entry.kind, entry.fingerprint[:16]) for entry in inputs]
            waiting += Roots.of(entry.uri for entry in inputs).artifacts  # a recipe's own model may be an artifact, too
    return kept


def _states(store: ArtifactStore, done: dict[str, str], before: datetime) -> Iterator[Rubbish]:
    """Training states of stages that are done, left by a run that ended between its commit and their removal."""
    for key, files in _grouped(store.location / STATE).items():
        steps: dict[str, int] = {}
        newest = datetime.min.replace(tzinfo=UTC)
        for name, size in files.items():
            parts = name.split("/")
            if re.fullmatch(r"step-[0-9]+", parts[0]):
                steps[parts[0]] = steps.get(parts[0], 0) + size
                newest = max([newest, *(attempt_time(part) for part in parts if is_attempt(part))])
        if key in done and newest < before:
            for step, size in steps.items():
                place = store.location / STATE / key / step
                yield Rubbish(place, "its stage is done", size, done[key], (place / MANIFEST,))


def _staging(store: ArtifactStore, done: dict[str, str], before: datetime) -> Iterator[Rubbish]:
    """Work of stages that are done, on this machine."""
    place = open_location(store.staging)
    for key in place.children():
        if key not in done:
            continue
        paths = [os.path.join(parent, name) for parent, _, names in os.walk((place / key).path) for name in names]
        status = [os.lstat(path) for path in [(place / key).path, *paths]]
        if datetime.fromtimestamp(max(one.st_mtime for one in status), UTC) < before:
            yield Rubbish(place / key, "its stage is done", sum(one.st_size for one in status[1:]), done[key])


def _grouped(place: Location) -> dict[str, dict[str, int]]:
    """Sizes of all files below a directory, by its children; one listing."""
    found: dict[str, dict[str, int]] = {}
    for name, size in _sizes(place):
        child, _, inside = name.partition("/")
        if inside:
            found.setdefault(child, {})[inside] = size
    return found


def _sizes(place: Location) -> Iterator[tuple[str, int]]:
    if place.local:
        for parent, _, names in os.walk(place.path):
            for name in names:
                path = os.path.join(parent, name)
                yield os.path.relpath(path, place.path), os.lstat(path).st_size
    else:
        for path, info in place.fs.find(place.path, detail=True).items():
            yield str(path).removeprefix(f"{place.path}/"), int(info.get("size") or 0)


def _take_away(note: Location) -> bytes | None:
    """Remove a file and return what it held."""
    data = read_if_present(note.fs, note.path)
    if data is not None:
        note.fs.rm_file(note.path)
        if note.local:
            fsync_directory(os.path.dirname(note.path))
    return data
