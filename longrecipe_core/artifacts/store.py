"""The artifact store: `<root>/<kind>/<fingerprint[:16]>/manifest.json` names the attempt beside it with
the data.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from longrecipe_core.artifacts.digest import DigestMemory
from longrecipe_core.artifacts.exclusive import (
    create_exclusively,
    fsync_directory,
    move_aside,
    read_if_present,
)
from longrecipe_core.artifacts.location import Location, open_location
from longrecipe_core.artifacts.manifest import (
    Adopted,
    ArtifactRef,
    InputEntry,
    Manifest,
    digest_of,
    installed_versions,
    is_attempt,
    new_attempt,
    plain_metrics,
    plain_recipe,
    source_commit,
    utc_now,
)
from longrecipe_core.artifacts.transfer import (
    find_damage,
    find_strays,
    get_directory,
    put_directory,
    refuse_damage,
    remove_tree,
)
from longrecipe_core.errors import ArtifactDamagedError, ArtifactMissingError, ManifestError, StoreError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "state"
RUNS = "runs"
POINTERS = "pointers"
STAGING = "staging"
NO_KINDS = (STATE, RUNS, POINTERS, STAGING)
"""Directories under the root that hold no artifacts."""


def default_cache() -> Path:
    """`$LONGRECIPE_CACHE`, else `longrecipe` in the user's cache directory."""
    own = os.environ.get("LONGRECIPE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longrecipe"


class ArtifactStore:
    """Artifacts under one root: a local directory or any fsspec URL that carries no credentials.

    `cache` is a local directory for downloads and for the memory of digests (default: `default_cache()`).
    Nothing is written before the first commit. Methods may be called from several threads and processes.
    """

    def __init__(self, root: str | os.PathLike[str], cache: Path | None = None) -> None:
        self.location = open_location(root)
        self.cache = Path(os.path.abspath(cache if cache is not None else default_cache()))
        self.digests = DigestMemory(self.cache / "digests.sqlite")

    @classmethod
    def containing(cls, uri: str, cache: Path | None = None) -> Self:
        """The store that an artifact's URI (its attempt's directory, or the parent) lies in."""
        depth = 2 + is_attempt(_names(uri)[-1])
        return cls(uri.rstrip("/").rsplit("/", depth)[0] or "/", cache)

    @property
    def root(self) -> str:
        """An absolute path for a local store, else a URL."""
        return self.location.uri

    @property
    def staging(self) -> Path:
        """Where stages work: on the store's own disk if that is local, so that a commit moves instead of copying."""
        return (Path(self.root) if self.location.local else self.cache) / "staging"

    def place(self, kind: str, fingerprint: str) -> Location:
        """The directory of manifest and attempts. Raises StoreError for an impossible kind or fingerprint."""
        if kind in NO_KINDS or not re.fullmatch(r"[a-z][a-z0-9_-]*", kind):
            raise StoreError(
                f"kind {kind!r} can't name an artifact: lower-case letters, digits, - and _; not {', '.join(NO_KINDS)}"
            )
        return self.location / kind / fingerprint_directory(fingerprint)

    def find(self, kind: str, fingerprint: str) -> Manifest | None:
        """The artifact's manifest, or None when there is no such artifact. The data is not looked at.

        Raises StoreError when another fingerprint with the same first 16 digits holds the place,
        ManifestError for one of an unknown schema, ArtifactDamagedError for an unreadable one: set that
        aside with `set_aside(ArtifactRef(uri=store.place(kind, fingerprint).uri, kind=...,
        fingerprint=...), reason)`.
        """
        return self._load(self.place(kind, fingerprint), kind, fingerprint)

    def ref(self, manifest: Manifest) -> ArtifactRef:
        """What other stages are given: the attempt's directory, kind and fingerprint."""
        uri = (self.place(manifest.kind, manifest.fingerprint) / manifest.attempt).uri
        return ArtifactRef(uri=uri, kind=manifest.kind, fingerprint=manifest.fingerprint)

    def manifest_of(self, ref: ArtifactRef | str) -> Manifest:
        """The manifest behind a reference, or behind the URI of an attempt's directory or of its parent.

        Raises ArtifactMissingError when there is none, or when it names another attempt by now.
        """
        uri = (ref.uri if isinstance(ref, ArtifactRef) else ref).rstrip("/")
        names = _names(uri)
        attempt = names[-1] if is_attempt(names[-1]) else None
        kind, directory = names[-3:-1] if attempt else names[-2:]
        place = self.location / kind / directory
        if open_location(uri).uri != (place / attempt if attempt else place).uri:
            raise ArtifactMissingError(f"{uri} is not an artifact of the store {self.root}")
        fingerprint = ref.fingerprint if isinstance(ref, ArtifactRef) else None
        manifest = self._load(place, kind, fingerprint)
        if manifest is None:
            raise ArtifactMissingError(f"{uri}: no {MANIFEST} there, so no artifact; run its stage again")
        if attempt not in (None, manifest.attempt):
            raise ArtifactMissingError(f"{uri}: the artifact was made anew since, as {manifest.attempt}")
        return manifest

    def manifest_digest(self, kind: str, fingerprint: str) -> str | None:
        """sha256 of the manifest's bytes, or None when there is no such artifact."""
        data = read_if_present(self.location.fs, (self.place(kind, fingerprint) / MANIFEST).path)
        return None if data is None else digest_of(data)

    def commit(
        self,
        kind: str,
        fingerprint: str,
        directory: Path,
        *,
        inputs: Mapping[str, ArtifactRef] | Sequence[ArtifactRef] = (),
        recipe: Mapping[str, Any],
        seconds: float,
        metrics: Mapping[str, Any] | None = None,
        consume: bool = False,
        stage: tuple[str, int] | tuple[None, None] = (None, None),
        forced: str | None = None,
        adopted: Adopted | None = None,
    ) -> ArtifactRef:
        """Make the files of a local directory an artifact. Another's earlier commit wins and its ref is
        returned.

        `inputs`: what it was made from, by name if it has names; one whose URI isn't in this store counts as an
        outside input. `stage`: name and version of the code. `forced` and `adopted`: see `Manifest`.
        `recipe`: the recipe part that decided it. `seconds`: how long the stage worked. `consume`: the
        files may be moved instead of copied (same local filesystem only); the emptied directory stays.

        Raises StoreError for a directory that can't be stored, FingerprintError for a recipe or metrics
        that JSON can't hold. An OSError while the manifest is written leaves the data in place: whether it
        counts is then for the next `find` to say.
        """
        place = self.place(kind, fingerprint)
        plain, figures = plain_recipe(recipe), plain_metrics(metrics or {})
        earlier = self.find(kind, fingerprint)
        if earlier is not None:
            return self.ref(earlier)
        attempt = new_attempt()
        named = inputs.items() if isinstance(inputs, Mapping) else ((None, ref) for ref in inputs)
        files = put_directory(directory, place / attempt, consume=consume)
        manifest = Manifest(
            kind=kind,
            fingerprint=fingerprint,
            attempt=attempt,
            files=files,
            stage=stage[0],
            stage_version=stage[1],
            forced=forced,
            adopted=adopted,
            inputs=tuple(self._input(name, ref) for name, ref in named),
            recipe=plain,
            versions=installed_versions(),
            git_commit=source_commit(),
            created=utc_now(),
            seconds=seconds,
            metrics=figures,
        )
        if self.location.local:
            fsync_parents(place.path, self.location.path)
        while not create_exclusively(place.fs, (place / MANIFEST).path, manifest.to_json()):
            winner = self.find(kind, fingerprint)
            if winner is not None:  # None: set aside this very moment, so the place is free again
                logger.info("%s: another run committed first and is used", place.uri)
                remove_tree(place / attempt)
                return self.ref(winner)
        return self.ref(manifest)

    def verify(self, ref: ArtifactRef, *, memory: bool = True) -> list[str]:
        """Check every listed file's existence, size and sha256. Returns names of stray files, which don't
        count as damage (nobody guards them, though: readers should follow the manifest).

        `memory`: skip reading a file whose digest is remembered for its present size, times and inode, or
        ETag. Raises ArtifactMissingError, ArtifactDamagedError naming every bad file.
        """
        manifest = self.manifest_of(ref)
        place = self.place(manifest.kind, manifest.fingerprint) / manifest.attempt
        refuse_damage(place.uri, find_damage(place, manifest.files, self.digests if memory else None))
        strays = find_strays(place, manifest.files)
        if strays:
            logger.warning("%s: not in the manifest: %s", place.uri, ", ".join(strays))
        return strays

    def newest(self, kind: str) -> Iterator[Manifest]:
        """The artifacts of a kind, newest attempt first: one listing, then each manifest as it is asked for.

        What can't be read is left out.
        """
        for directory in self._by_time(self.location / kind):
            try:
                manifest = self._load(directory, kind, None)
            except (ArtifactDamagedError, ManifestError, StoreError) as error:
                logger.debug("%s", error)
                continue
            if manifest is not None:
                yield manifest

    def _by_time(self, place: Location) -> list[Location]:
        """Directories of artifacts by their newest attempt, whose name tells the time on every filesystem."""
        newest: dict[str, str] = {}
        if place.local:
            pairs: Iterable[tuple[str, str]] = (
                (key, name) for key in place.children() for name in (place / key).children()
            )
        else:
            inside = (str(path).removeprefix(f"{place.path}/").split("/") for path in place.fs.find(place.path))
            pairs = ((names[0], names[1]) for names in inside if len(names) > 1)
        for key, name in pairs:
            if is_attempt(name):
                newest[key] = max(newest.get(key, ""), name)
        return [place / key for key in sorted(newest, key=lambda key: newest[key], reverse=True)]

    def set_aside(self, ref: ArtifactRef, reason: str, label: str = "damaged") -> None:
        """Rename the manifest to `manifest.<label>-<time>.json`, the reason beside it: the artifact no
        longer exists and will be made again. Deletes no data. Does nothing when it is gone or was made anew
        already."""
        place = self.place(ref.kind, ref.fingerprint)
        path = (place / MANIFEST).path
        data = read_if_present(place.fs, path)
        if data is None or not self._stands_for(data, ref, place):
            return
        aside = (place / f"manifest.{label}-{new_attempt()}.json").path
        if move_aside(place.fs, path, data, aside, reason):
            logger.warning("%s set aside: %s", ref.uri, reason)

    def fetch(self, ref: ArtifactRef) -> Path:
        """A local directory with the verified data: the attempt's own for a local store, else a cached
        download.

        Raises ArtifactMissingError, ArtifactDamagedError.
        """
        if self.location.local:
            self.verify(ref)
            manifest = self.manifest_of(ref)
            return Path((self.place(manifest.kind, manifest.fingerprint) / manifest.attempt).path)
        manifest = self.manifest_of(ref)
        source = self.place(manifest.kind, manifest.fingerprint) / manifest.attempt
        root = hashlib.sha256(self.root.encode()).hexdigest()[:8]
        target = self.cache / "artifacts" / root / manifest.kind / manifest.fingerprint[:16] / manifest.attempt
        if target.exists():
            problems = find_damage(open_location(target), manifest.files, self.digests)
            if not problems:
                return target
            logger.warning("%s: downloaded again: %s", target, "; ".join(problems))
            shutil.rmtree(target)
        try:
            get_directory(source, manifest.files, target)
        except OSError:
            if not target.exists():
                raise
            # Another process downloaded it at the same time.
            refuse_damage(str(target), find_damage(open_location(target), manifest.files, self.digests))
        return target

    def changed_inputs(self, manifest: Manifest) -> list[str]:
        """URIs of the inputs that are gone or hold other data than when the artifact was made; [] is good.

        An input that was made again with the same bytes has not changed: what was trained on it stays valid.
        """
        return [
            entry.uri for entry in manifest.inputs if entry.manifest_sha256 is not None and not self.input_stands(entry)
        ]

    def input_stands(self, entry: InputEntry) -> bool:
        """Whether an input from this store is there with the data that it had."""
        try:
            present = self.find(entry.kind, entry.fingerprint)
        except ArtifactDamagedError:
            return False
        return present is not None and present.content_digest() == entry.content_sha256

    def _load(self, place: Location, kind: str, fingerprint: str | None) -> Manifest | None:
        path = place / MANIFEST
        data = read_if_present(place.fs, path.path)
        if data is None:
            return None
        manifest = Manifest.from_json(data, path.uri)
        if manifest.kind != kind or manifest.fingerprint[:16] != place.path.rsplit("/", 1)[1]:
            raise ArtifactDamagedError(f"{path.uri} describes {manifest.kind}/{manifest.fingerprint}")
        if fingerprint not in (None, manifest.fingerprint):
            raise StoreError(
                f"{path.uri} is of {manifest.fingerprint}, whose first 16 digits are those of {fingerprint}: "
                "keep one of the two in another store"
            )
        return manifest

    def _input(self, name: str | None, ref: ArtifactRef) -> InputEntry:
        if ref.kind == "outside" or not self._holds(ref):  # a recipe's own model or source may lie in a store, too
            return InputEntry(name=name, kind=ref.kind, fingerprint=ref.fingerprint, uri=ref.uri, manifest_sha256=None)
        present = self.find(ref.kind, ref.fingerprint)
        return InputEntry(
            name=name,
            kind=ref.kind,
            fingerprint=ref.fingerprint,
            uri=ref.uri,
            manifest_sha256=self.manifest_digest(ref.kind, ref.fingerprint) or "gone",
            content_sha256=present.content_digest() if present else None,
        )

    def _holds(self, ref: ArtifactRef) -> bool:
        return ref.uri.startswith(self.root.rstrip("/") + "/")

    def _stands_for(self, data: bytes, ref: ArtifactRef, place: Location) -> bool:
        name = ref.uri.rstrip("/").rsplit("/", 1)[-1]
        try:
            manifest = Manifest.from_json(data, place.uri)
        except ArtifactDamagedError:
            return True
        return manifest.fingerprint == ref.fingerprint and (not is_attempt(name) or manifest.attempt == name)


def fingerprint_directory(fingerprint: str) -> str:
    """The directory name of a fingerprint. Raises StoreError for what isn't one."""
    if not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise StoreError(f"{fingerprint!r} is not a fingerprint (64 hex digits)")
    return fingerprint[:16]


def fsync_parents(path: str, top: str) -> None:
    """fsync a local directory and those above it, up to `top`: any of them may be new."""
    while True:
        fsync_directory(path)
        if path == top or len(path) < len(top):
            return
        path = os.path.dirname(path)


def _names(uri: str) -> list[str]:
    names = uri.rstrip("/").split("/")
    if len(names) < 3:
        raise ArtifactMissingError(f"{uri} is not an artifact's URI (ROOT/KIND/FINGERPRINT/ATTEMPT)")
    return names
