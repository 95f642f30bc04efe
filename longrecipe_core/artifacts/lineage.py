"""What an artifact was made from, all the way up."""

from collections.abc import Iterator
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

    def lines(self) -> list[str]:
        """The tree as indented text, one line per artifact; what one was made from is told once."""
        return list(self._lines(0, set()))

    def _lines(self, depth: int, told: set[str]) -> Iterator[str]:
        note = " (changed since)" if self.changed else " (outside)" if self.manifest is None else ""
        stage = ""
        if self.manifest is not None:
            stage = f" of {self.manifest.stage}" if self.manifest.stage else ""
            if self.manifest.adopted is not None:
                note = f" (adopted from {self.manifest.adopted.uri})"
        again = self.uri in told and bool(self.inputs)
        if again:
            note += " (see above)"
        yield f"{'  ' * depth}{self.kind}{stage} {self.fingerprint[:16]} {self.uri}{note}"
        told.add(self.uri)
        if not again:
            for one in self.inputs:
                yield from one._lines(depth + 1, told)


def lineage(store: ArtifactStore, ref: ArtifactRef) -> Lineage:
    """Walk up the inputs recorded in the manifests. Raises ArtifactMissingError for `ref` itself only."""
    manifest, known = store.manifest_of(ref), dict[InputEntry, Lineage]()
    return Lineage(
        uri=ref.uri,
        kind=ref.kind,
        fingerprint=ref.fingerprint,
        manifest=manifest,
        inputs=tuple(_of_input(store, entry, known) for entry in manifest.inputs),
    )


def _of_input(store: ArtifactStore, entry: InputEntry, known: dict[InputEntry, Lineage]) -> Lineage:
    if entry in known:
        return known[entry]
    inside = entry.manifest_sha256 is not None
    stands = not inside or store.input_stands(entry)
    manifest = store.find(entry.kind, entry.fingerprint) if inside and stands else None
    known[entry] = Lineage(
        uri=entry.uri,
        kind=entry.kind,
        fingerprint=entry.fingerprint,
        manifest=manifest,
        changed=not stands,
        # Fingerprints contain those of the inputs, so there can be no circle.
        inputs=tuple(_of_input(store, one, known) for one in manifest.inputs) if manifest else (),
    )
    return known[entry]
