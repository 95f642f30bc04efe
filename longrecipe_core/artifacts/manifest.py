"""The manifest: what makes a directory of files an artifact."""

import functools
import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
)

from longrecipe_core.artifacts.fingerprint import canonical_json
from longrecipe_core.errors import ArtifactDamagedError, ManifestError

SCHEMA_VERSION = 1
Record = TypeVar("Record", bound=BaseModel)
_PACKAGES = (
    "longrecipe",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "datasets",
    "numpy",
    "pyarrow",
    "safetensors",
    "flash-attn",
    "liger-kernel",
)


def _inside(name: str) -> str:
    # A manifest may come from a store that others write to: its names must not lead out of the directory.
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise ValueError(f"{name!r} is not a plain relative file name")
    return name


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$")]
Attempt = Annotated[str, StringConstraints(pattern=r"^[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArtifactRef(_Record):
    """All that travels between stages. `uri` is the directory that holds the data."""

    uri: str
    kind: str
    fingerprint: str


class FileEntry(_Record):
    """One file: name relative to the attempt's directory, with `/`; size in bytes."""

    name: Annotated[str, AfterValidator(_inside)]
    size: int = Field(ge=0)
    sha256: Sha256


class InputEntry(_Record):
    """One input as it was when the artifact was made.

    `manifest_sha256` is None for an input from outside the store, `gone` for one that was no longer in the
    store when the artifact was committed. `content_sha256` is its `Manifest.content_digest()`. `name` is what the stage
    calls it; early manifests have none.
    """

    name: str | None = None
    kind: str
    fingerprint: str
    uri: str
    manifest_sha256: Sha256 | Literal["gone"] | None
    content_sha256: Sha256 | None = None


class Adopted(_Record):
    """Where a stage's result came from that no stage made: a checkpoint's URI, and its content's digest."""

    uri: str
    content_sha256: Sha256


class Manifest(_Record):
    """Everything known about one artifact. It exists exactly when its manifest does.

    `stage` and `stage_version` tell which code it is of (early manifests have neither), `forced` which run asked for it
    to be made again, `adopted` that it was taken as it was.
    """

    schema_version: Literal[1] = 1
    kind: Kind
    fingerprint: Sha256
    attempt: Attempt
    stage: str | None = None
    stage_version: int | None = None
    forced: str | None = None
    adopted: Adopted | None = None
    files: tuple[FileEntry, ...]
    inputs: tuple[InputEntry, ...] = ()
    recipe: dict[str, JsonValue] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    git_commit: str | None = None
    created: str
    seconds: float
    metrics: dict[str, JsonValue] = Field(default_factory=dict)

    def content_digest(self) -> str:
        """sha256 over names and digests of the files, but for those under `about/`, which tell how it was made.

        Two attempts that made the same data have the same, whatever they took and logged.
        """
        return content_digest((file.name, file.sha256) for file in self.files)

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`."""
        return dump_record(self)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Self:
        """Raises ManifestError for an unknown schema version, ArtifactDamagedError for anything else
        unreadable.
        """
        return load_record(cls, data, where)


def content_digest(files: Iterable[tuple[str, str]]) -> str:
    """See `Manifest.content_digest`; `files` are names and sha256."""
    rows = sorted((name, sha256) for name, sha256 in files if not name.startswith("about/"))
    return hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()


class StateManifest(_Record):
    """The manifest of one saved training state."""

    schema_version: Literal[1] = 1
    fingerprint: Sha256
    step: int = Field(ge=0)
    attempt: Attempt
    files: tuple[FileEntry, ...]
    created: str


def dump_record(record: BaseModel) -> bytes:
    """A record as indented JSON, keys sorted."""
    return (json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def load_record(model: type[Record], data: bytes, where: str) -> Record:
    """Raises ManifestError for an unknown schema version, ArtifactDamagedError for anything else
    unreadable.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ArtifactDamagedError(f"{where}: not JSON ({error})") from None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise ManifestError(
            f"{where}: schema_version {version}, but this LongRecipe reads {SCHEMA_VERSION} only; "
            "use the release that wrote it, or another store"
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, one["loc"])) + f" ({one['msg']})" for one in error.errors())
        raise ArtifactDamagedError(f"{where}: not a manifest: {fields}") from None


def digest_of(manifest: bytes) -> str:
    """sha256 of a manifest's bytes, as recorded in the artifacts made from it."""
    return hashlib.sha256(manifest).hexdigest()


def plain_recipe(recipe: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The recipe part as it will be read back. Raises FingerprintError for what JSON can't hold."""
    plain: dict[str, JsonValue] = json.loads(canonical_json(dict(recipe)))
    return plain


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Metrics as JSON; NaN and infinities become strings, since a bad figure must not cost the finished
    artifact.
    """

    def finite(value: Any) -> Any:
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, Mapping):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(item) for item in value]
        return value

    return plain_recipe(finite(metrics))


def utc_now() -> str:
    """ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def new_attempt() -> str:
    """A name that no other writer takes and that sorts by time."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ-") + os.urandom(4).hex()


def is_attempt(name: str) -> bool:
    """Whether this is a name that `new_attempt` gives."""
    return re.fullmatch(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}", name) is not None


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for package in _PACKAGES:
        try:
            found.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue  # an optional one
    return tuple(found)


def installed_versions() -> dict[str, str]:
    """Versions of what decides results, from the packages' metadata: nothing is imported."""
    return dict(_versions())


@functools.cache
def source_commit() -> str | None:
    """Commit of this source tree, with `-dirty` for uncommitted changes; None when installed without git."""
    tree = Path(__file__).resolve().parents[2]
    if not (tree / ".git").exists():
        return None  # in site-packages: a repository further up is somebody else's
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or no commit yet
    return done.stdout.strip() or None
