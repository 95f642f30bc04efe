"""What is published: a checkpoint's files, with the card and the pictures of its report."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore
from longrecipe_core.errors import PublishError

CARD_FILE = "README.md"


@dataclass(frozen=True)
class PublishedFile:
    """A local file: what it is called at the target, where it is, size in bytes, sha256 in hex."""

    name: str
    path: Path
    size: int
    sha256: str


def model_files(store: ArtifactStore, model: ArtifactRef, report: ArtifactRef) -> list[PublishedFile]:
    """The files of a checkpoint artifact, verified, without `about/`; the report's card and pictures beside them.

    Raises:
        PublishError: The report has no card, or the checkpoint no config.json.
        ArtifactMissingError, ArtifactDamagedError: One of the two is not there or not whole.
    """
    found = {file.name: file for file in _files(store, model) if not file.name.startswith("about/")}
    beside = [file for file in _files(store, report) if file.name == CARD_FILE or _is_picture(file.name)]
    found |= {file.name: file for file in beside}
    for name, uri in (("config.json", model.uri), (CARD_FILE, report.uri)):
        if name not in found:
            raise PublishError(f"{uri}: holds no {name}, so it can't be published; run the recipe again")
    return [found[name] for name in sorted(found)]


def _files(store: ArtifactStore, ref: ArtifactRef) -> Iterator[PublishedFile]:
    directory = store.fetch(ref)
    for entry in store.manifest_of(ref).files:
        yield PublishedFile(entry.name, directory / entry.name, entry.size, entry.sha256)


def _is_picture(name: str) -> bool:
    return name.endswith(".png") and "/" not in name
