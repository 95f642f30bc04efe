"""Where a model comes from: a directory, an fsspec URL or the Hugging Face hub; and what identifies it."""

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from longrecipe_core.artifacts.digest import DigestMemory, digest_url
from longrecipe_core.artifacts.location import open_location
from longrecipe_core.errors import LongRecipeError, ModelError
from longrecipe_core.modeling.files import CODE_PATTERNS, CONFIG_NAME, MODEL_PATTERNS, files_matching, matches


def fetch_model(
    path: str, revision: str | None = None, trust_remote_code: bool = False, *, into: Path | None = None
) -> Path:
    """A local directory with the model's config, safetensors and tokenizer files.

    A local directory is returned as it is. A URL is downloaded to `into` (which must not hold anything yet),
    or to a temporary directory that goes away with this process. A hub id is fetched to the hub's cache;
    tokens come from the environment. Python code is fetched only where it may be run.

    Raises ModelError, one line, for what is not there or can't be reached.
    """
    patterns = _patterns(trust_remote_code)
    if "://" in path:
        _refuse_revision(path, revision)
        directory = _download(path, patterns, into)
    elif (local := _local(path)) is not None:
        _refuse_revision(path, revision)
        directory = local
    else:
        directory = _snapshot(path, revision, patterns)
    if not (directory / CONFIG_NAME).is_file():
        raise ModelError(f"{path}: has no {CONFIG_NAME}; a Hugging Face model directory is needed")
    return directory


def model_identity(
    path: str, revision: str | None = None, memory: DigestMemory | None = None, trust_remote_code: bool = False
) -> str:
    """What a model's content is known by, for fingerprints.

    Directory or URL: `sha256:` and the digest over (name, sha256) of the files that a model consists of, so a
    README or a copy in another format beside them changes nothing; Python code counts where it may be run.
    Hub id: `commit:` and the resolved commit.

    Raises ModelError for what is not there or can't be reached.
    """
    patterns = _patterns(trust_remote_code)
    if "://" in path:
        _refuse_revision(path, revision)
        members = _remote_members(path, patterns)
    elif (local := _local(path)) is not None:
        _refuse_revision(path, revision)
        members = {name: str(local / name) for name in files_matching(local, patterns)}
    else:
        # The cache names a snapshot's directory by its commit, online and offline alike.
        return f"commit:{_snapshot(path, revision, (CONFIG_NAME,)).name}"
    if not members:
        raise ModelError(f"{path}: holds no file of a model")
    rows = [[name, digest_url(url, memory=memory)] for name, url in sorted(members.items())]
    return f"sha256:{hashlib.sha256(json.dumps(rows).encode('utf-8')).hexdigest()}"


def _patterns(trust_remote_code: bool) -> tuple[str, ...]:
    return MODEL_PATTERNS if trust_remote_code else tuple(p for p in MODEL_PATTERNS if p not in CODE_PATTERNS)


def _local(path: str) -> Path | None:
    """The directory that a path names, or None for a hub id."""
    directory = Path(path).expanduser()
    if directory.is_dir():
        return directory
    if directory.exists():
        raise ModelError(f"{path}: is a file; a model directory, URL or hub id is needed")
    if path.startswith(("/", ".", "~")) or path.count("/") > 1:
        raise ModelError(f"{path}: no such directory")
    return None


def _refuse_revision(path: str, revision: str | None) -> None:
    if revision is not None:
        raise ModelError(f"{path}: revision {revision} has a meaning for hub ids only")


def _snapshot(repository: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    # From the environment only: a login stored on the machine may be another person's.
    token = os.environ.get("HF_TOKEN") or False
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns), token=token))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        where = f"{repository} at {revision}" if revision else repository
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{where}: no such directory, and not to be had from the hub: {reason}") from error


def _remote_members(url: str, patterns: tuple[str, ...]) -> dict[str, str]:
    try:
        place = open_location(url)
        found = place.fs.find(place.path)
    except (OSError, ImportError, ValueError, LongRecipeError) as error:
        raise ModelError(f"{url}: can't be listed: {error}") from error
    names = {str(full)[len(place.path) :].lstrip("/"): str(full) for full in found}
    return {name: place.fs.unstrip_protocol(full) for name, full in names.items() if matches(name, patterns)}


def _download(url: str, patterns: tuple[str, ...], into: Path | None) -> Path:
    members = _remote_members(url, patterns)
    if not members:
        raise ModelError(f"{url}: no model there")
    if into is None:
        into = Path(tempfile.mkdtemp(prefix="longrecipe-model-"))
        atexit.register(shutil.rmtree, into, ignore_errors=True)
    elif into.exists() and any(into.iterdir()):
        raise ModelError(f"{into}: must be empty to download {url} to it")
    place = open_location(url)
    for name in members:
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.fs.get_file(f"{place.path}/{name}", str(target))
        except OSError as error:
            raise ModelError(f"{url}/{name}: can't be downloaded: {error}") from error
    return into
