"""One file of an artifact, without the others: a checkpoint's config or log needs none of its weights."""

import hashlib

from longrecipe_core.artifacts.exclusive import read_if_present
from longrecipe_core.artifacts.manifest import ArtifactRef
from longrecipe_core.artifacts.store import ArtifactStore
from longrecipe_core.artifacts.transfer import refuse_damage


def read_file(store: ArtifactStore, ref: ArtifactRef, name: str) -> bytes | None:
    """A file's bytes, None where the artifact has no such file.

    Raises ArtifactMissingError, and ArtifactDamagedError for other bytes than the manifest lists.
    """
    manifest = store.manifest_of(ref)
    entry = next((file for file in manifest.files if file.name == name), None)
    if entry is None:
        return None
    place = store.place(manifest.kind, manifest.fingerprint) / manifest.attempt / name
    data = read_if_present(place.fs, place.path)
    if data is None:
        refuse_damage(place.uri, [f"{name}: missing"])
    elif hashlib.sha256(data).hexdigest() != entry.sha256:
        refuse_damage(place.uri, [f"{name}: other bytes than its manifest lists"])
    return data
