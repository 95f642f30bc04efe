"""Training state: checkpoints to resume from, beside the artifacts, gone once the artifact is there."""

import logging
import re
from pathlib import Path

from longrecipe_core.artifacts.exclusive import fsync_directory, move_aside, read_if_present, replace
from longrecipe_core.artifacts.lease import Lease
from longrecipe_core.artifacts.location import Location
from longrecipe_core.artifacts.manifest import (
    StateManifest,
    dump_record,
    is_attempt,
    load_record,
    new_attempt,
    utc_now,
)
from longrecipe_core.artifacts.store import (
    MANIFEST,
    STATE,
    ArtifactStore,
    fingerprint_directory,
    fsync_parents,
)
from longrecipe_core.artifacts.transfer import get_directory, put_directory, remove_tree
from longrecipe_core.errors import ArtifactDamagedError, ArtifactMissingError, StoreError

logger = logging.getLogger(__name__)

FORCED = "forced.txt"


class TrainingState:
    """The saved steps of one stage: `<root>/state/<fingerprint[:16]>/step-N/manifest.json` and an attempt
    beside it.

    Only the holder of the stage's lease may write. With `lease` given, every write checks it first
    (LeaseLostError).
    """

    def __init__(self, store: ArtifactStore, fingerprint: str, lease: Lease | None = None) -> None:
        self.fingerprint = fingerprint
        self._lease = lease
        self._root = store.location
        self._place = store.location / STATE / fingerprint_directory(fingerprint)

    def steps(self) -> list[int]:
        """The complete steps, ascending. One whose manifest can't be read doesn't count."""
        found = []
        for step in self._directories():
            try:
                if self._manifest(step) is not None:
                    found.append(step)
            except ArtifactDamagedError as error:
                logger.warning("%s", error)
        return found

    def latest(self) -> int | None:
        """The highest complete step, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, directory: Path, keep: int = 2, *, consume: bool = False) -> None:
        """Save the files of a local directory as the state after `step`, then prune to the newest `keep` up
        to it.

        A step saved before is replaced at the very end, so one of the two is always there. `consume`: the
        files may be moved instead of copied.
        """
        if keep < 1 or step < 0:
            raise StoreError(f"step {step} must be at least 0 and keep {keep} at least 1")
        self._check_lease()
        place = self._step(step)
        attempt = new_attempt()
        files = put_directory(directory, place / attempt, consume=consume)
        manifest = StateManifest(
            fingerprint=self.fingerprint, step=step, attempt=attempt, files=files, created=utc_now()
        )
        if place.local:
            fsync_parents(place.path, self._root.path)
        self._check_lease()
        replace(place.fs, (place / MANIFEST).path, dump_record(manifest))
        for name in place.children():
            if is_attempt(name) and name != attempt:
                remove_tree(place / name)
        self._prune(step, keep)

    def load(self, step: int, into: Path) -> None:
        """Copy a step's files, verified, into the new or empty directory `into`; nothing is there after an
        error.

        Raises ArtifactMissingError, ArtifactDamagedError naming every bad file, StoreError if `into` isn't
        empty.
        """
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise StoreError(f"{into} is not an empty directory: a training state needs one of its own")
        manifest = self._manifest(step)
        if manifest is None:
            raise ArtifactMissingError(f"{self._step(step).uri}: no complete training state; there are {self.steps()}")
        get_directory(self._step(step) / manifest.attempt, manifest.files, into)

    def set_aside(self, step: int, reason: str) -> None:
        """Rename a damaged step's manifest, so that an older step is the latest. Deletes no data."""
        self._check_lease()
        path = (self._step(step) / MANIFEST).path
        data = read_if_present(self._place.fs, path)
        if data is not None:
            aside = (self._step(step) / f"manifest.damaged-{new_attempt()}.json").path
            move_aside(self._place.fs, path, data, aside, reason)
            logger.warning("%s set aside: %s", self._step(step).uri, reason)

    def clear(self) -> None:
        """Remove every step. The lease stays."""
        self._check_lease()
        for step in self._directories():
            self._remove(step)

    def request(self) -> str | None:
        """The run that asked for this stage to be trained anew, while that training is not finished."""
        data = read_if_present(self._place.fs, (self._place / FORCED).path)
        return None if data is None else data.decode()

    def note_request(self, request: str | None) -> None:
        """Note which run asked for it, None when that is done."""
        self._check_lease()
        path = (self._place / FORCED).path
        if request is not None:
            replace(self._place.fs, path, request.encode())
        elif self.request() is not None:
            self._place.fs.rm_file(path)

    def _prune(self, step: int, keep: int) -> None:
        complete = self.steps()
        kept = [one for one in complete if one <= step][-keep:]
        # Later steps than the one just saved are of a run that was rolled back: they stay until it passes
        # them.
        for one in self._directories():
            if one < step and one not in kept:
                self._remove(one)

    def _remove(self, step: int) -> None:
        place = self._step(step)
        path = (place / MANIFEST).path
        # The manifest first: half-removed data must not look complete.
        if place.local:
            Path(path).unlink(missing_ok=True)
            fsync_directory(place.path)
        elif read_if_present(place.fs, path) is not None:
            place.fs.rm_file(path)
        remove_tree(place)

    def _manifest(self, step: int) -> StateManifest | None:
        path = self._step(step) / MANIFEST
        data = read_if_present(path.fs, path.path)
        if data is None:
            return None
        manifest = load_record(StateManifest, data, path.uri)
        if manifest.fingerprint != self.fingerprint:
            raise StoreError(
                f"{path.uri} is of {manifest.fingerprint}, whose first 16 digits are those "
                f"of {self.fingerprint}: use another store for one of the two"
            )
        return manifest

    def _step(self, step: int) -> Location:
        return self._place / f"step-{step}"

    def _directories(self) -> list[int]:
        matches = (re.fullmatch(r"step-([0-9]+)", name) for name in self._place.children())
        return sorted(int(match[1]) for match in matches if match)

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()
