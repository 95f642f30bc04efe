"""What an artifact was made from, all the way up."""

from dataclasses import dataclass, field

from longrecipe_core.artifacts.manifest import ArtifactRef, InputEntry, Manifest
from longrecipe_core.artifacts.store import ArtifactStore


@dataclass(frozen=True)
class Lineage:
    """One artifact and its inputs.

    `manifest` is None for an outside input and for an artifact that is no longer in the store; `changed` says
    that the input is gone or was made anew since it was used.
    """

    uri: str
    kind: str
    fingerprint: str
    manifest: Manifest | None
    changed: bool = False
    inputs: tuple["Lineage", ...] = field(default=())

    def adopted(self) -> dict[str, str]:
        """Which stages above, this one included, were adopted, and from where."""
        above = {stage: uri for one in self.inputs for stage, uri in one.adopted().items()}
        if self.manifest is not None and self.manifest.adopted is not None:
            above[self.manifest.stage or self.kind] = self.manifest.adopted.uri
        return above

    def lines(self, depth: int = 0) -> list[str]:
        """The tree as indented text, one line per artifact."""
        note = " (changed since)" if self.changed else " (outside)" if self.manifest is None else ""
        if self.manifest is not None and self.manifest.adopted is not None:
            note += f" (adopted from {self.manifest.adopted.uri})"
        own = f"{'  ' * depth}{self.kind} {self.fingerprint[:16]} {self.uri}{note}"
        return [own, *(line for one in self.inputs for line in one.lines(depth + 1))]


def lineage(store: ArtifactStore, ref: ArtifactRef) -> Lineage:
    """Walk up the inputs recorded in the manifests. Raises ArtifactMissingError for `ref` itself only."""
    manifest = store.manifest_of(ref)
    return Lineage(
        uri=ref.uri,
        kind=ref.kind,
        fingerprint=ref.fingerprint,
        manifest=manifest,
        inputs=tuple(_of_input(store, entry) for entry in manifest.inputs),
    )


def _of_input(store: ArtifactStore, entry: InputEntry) -> Lineage:
    inside = entry.manifest_sha256 is not None
    stands = not inside or store.input_stands(entry)
    manifest = store.find(entry.kind, entry.fingerprint) if inside and stands else None
    return Lineage(
        uri=entry.uri,
        kind=entry.kind,
        fingerprint=entry.fingerprint,
        manifest=manifest,
        changed=not stands,
        # Fingerprints contain those of the inputs, so there can be no circle.
        inputs=tuple(_of_input(store, one) for one in manifest.inputs) if manifest else (),
    )
