"""Taking an existing checkpoint as a stage's result, in place of a training."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longrecipe_core.artifacts import Adopted, ArtifactStore
from longrecipe_core.artifacts.digest import remembered_digest
from longrecipe_core.artifacts.location import Location, open_location, redact
from longrecipe_core.artifacts.manifest import content_digest
from longrecipe_core.errors import AdoptionError, ArtifactDamagedError, ArtifactMissingError, ModelError, StoreError

if TYPE_CHECKING:
    from tasks.run import Work

CHANGE_WINDOW = ("warmup", "extend", "anneal", "merge")
"""Stages whose result has the recipe's target length as its window."""


@dataclass(frozen=True)
class Source:
    """A checkpoint that is to be adopted: where it lies, the digest of its content, its files' names."""

    uri: str
    content: str
    place: Location
    names: tuple[str, ...]

    def copy(self, into: Path) -> None:
        """Copy the files into a local directory."""
        for name in self.names:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            if self.place.local:
                shutil.copyfile(f"{self.place.path}/{name}", into / name)
            else:
                self.place.fs.get_file(f"{self.place.path}/{name}", str(into / name))


def find_source(stage: str, uri: str, store: ArtifactStore) -> Source:
    """The checkpoint at a local path, fsspec URL, or URI of an artifact of any store.

    A directory is known by the digests of its files, which are read once and remembered; `about/` and hidden files are
    no part of a checkpoint.

    Raises:
        AdoptionError: It isn't there or is no checkpoint.
        ArtifactDamagedError: It is an artifact that isn't whole.
    """
    text = str(Path(uri).expanduser().resolve()) if "://" not in uri else uri.rstrip("/")
    try:
        place = open_location(text)
    except StoreError as error:
        raise AdoptionError(f"adopt.{stage}: {error}") from None
    artifact = _artifact(stage, place.uri, store)
    if artifact is not None:
        return artifact
    names = tuple(sorted(name for name in _names(place) if _counts(name)))
    if "config.json" not in names:
        raise AdoptionError(
            f"adopt.{stage}: {redact(uri)}: holds no config.json; a directory with a Hugging Face checkpoint is "
            "needed, or the URI of a checkpoint that a run has made"
        )
    digests = ((name, remembered_digest(place.fs, f"{place.path}/{name}", store.digests)[0]) for name in names)
    return Source(place.uri, content_digest(digests), place, names)


def adopt(work: "Work", source: Source) -> dict[str, Any]:
    """Copy the checkpoint into the stage's output and check it; returns metrics.

    Raises:
        AdoptionError: It is not complete, or its window is too short for the recipe.
    """
    from longrecipe_core.modeling import check_complete, load_config
    from longrecipe_core.modeling.files import TOKENIZER_PATTERNS, files_matching

    recipe, where = work.run.recipe, f"adopt.{work.stage.name}: {source.uri}"
    trust = bool(recipe.model and recipe.model.trust_remote_code)
    source.copy(work.output)
    try:
        found = check_complete(work.output, trust_remote_code=trust)
        config = load_config(work.output, trust)
    except ModelError as error:
        raise AdoptionError(f"{where}: {str(error).replace(f'{work.output}: ', '')}") from None
    if not files_matching(work.output, TOKENIZER_PATTERNS):
        raise AdoptionError(f"{where}: holds no tokenizer files; put those of the model beside it")
    target = recipe.context.target_length
    if work.stage.name in CHANGE_WINDOW:
        for key in ("max_position_embeddings", "sliding_window", "attention_chunk_size"):
            span = getattr(config, key, None)
            if span is not None and span < target:
                raise AdoptionError(
                    f"{where}: its {key} {span} is below context.target_length {target}: adopt a checkpoint that "
                    f"reaches that far, or set context.target_length to {span} at most"
                )
    return {"parameters": found.parameters}


def adopted(source: Source) -> Adopted:
    """What the manifest tells."""
    return Adopted(uri=source.uri, content_sha256=source.content)


def _artifact(stage: str, uri: str, store: ArtifactStore) -> Source | None:
    """The artifact at this URI, verified; None where there is none, such as at a directory that somebody copied out."""
    try:
        home = ArtifactStore.containing(uri, store.cache)
        manifest = home.manifest_of(uri)
    except (ArtifactMissingError, StoreError):
        return None
    except ArtifactDamagedError:
        if uri.startswith(f"{store.root}/"):
            raise
        return None  # some other program's manifest.json
    if manifest.kind != "checkpoint":
        raise AdoptionError(f"adopt.{stage}: {uri}: is an artifact of kind {manifest.kind}; only a checkpoint will do")
    home.verify(home.ref(manifest))
    place = home.place(manifest.kind, manifest.fingerprint) / manifest.attempt
    names = tuple(file.name for file in manifest.files if not file.name.startswith("about/"))
    return Source(place.uri, manifest.content_digest(), place, names)


def _names(place: Location) -> Iterable[str]:
    if place.local:
        for parent, _, files in os.walk(place.path, followlinks=True):
            yield from (Path(parent, name).relative_to(place.path).as_posix() for name in files)
    else:
        yield from (str(path).removeprefix(f"{place.path}/") for path in place.fs.find(place.path))


def _counts(name: str) -> bool:
    return not any(part.startswith(".") for part in name.split("/")) and not name.startswith("about/")
