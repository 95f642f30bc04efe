"""From a source's path to the files that it means, in an order that never changes."""

import os
import re
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import PurePosixPath
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.utils import glob_translate, infer_compression

from longrecipe_core.artifacts.location import redact, uri_of
from longrecipe_core.errors import CorpusError

STDLIB = "{stdlib}"
# What differs between two installations of one Python, or is made to be broken: packages that were added,
# caches, tests and their data (lib2to3's among them), and what the build writes of its machine and compiler.
_NOT_STDLIB = frozenset({"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"})
_BUILD_DIRECTORY = "config-"  # and version and platform
_BUILD_FILES = ("_sysconfigdata", "_sysconfig_vars", "build-details.json")
# Which files of a directory are read; a file or a glob that is named takes what it names.
_SUFFIXES = {
    "jsonl": (".jsonl", ".json", ".ndjson"),
    "parquet": (".parquet",),
    "arrow": (".arrow",),
    "python-docstrings": (".py",),
}


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, on any fsspec filesystem; `listed` is what the listing told of it."""

    fs: AbstractFileSystem
    path: str
    listed: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def uri(self) -> str:
        """A plain path where the file is local, else its URL; credentials may be in it."""
        return uri_of(self.fs, self.path)

    @property
    def name(self) -> str:
        """The URI as messages show it."""
        return redact(self.uri)

    @property
    def compression(self) -> str | None:
        """fsspec's name for the compression that the file's name promises."""
        compression: str | None = infer_compression(self.path)
        return compression


def list_files(path: str, format: str) -> list[SourceFile]:
    """The files that a source's path names, sorted by name.

    Args:
        path: a file, a directory (all files below it with a name fit for the format, hidden ones excepted), a
            glob, or an fsspec URL of one of these. `{stdlib}` stands for the directory of Python's own
            library; below it, added packages, caches, tests and what the build has written are left out, so
            that one Python release gives one list.
        format: as in `SourceSection.format`.

    Raises:
        CorpusError: nothing is there, or the place can't be read.
    """
    url = path.replace(STDLIB, sysconfig.get_path("stdlib"))
    try:
        # A listing from a cache would hide what has just been written.
        fs, place = url_to_fs(url if "://" in url else os.path.abspath(expand_home(url)), use_listings_cache=False)
        found = _stdlib_listing(str(place)) if _in_stdlib(path) else _listing(fs, str(place), format)
    except (OSError, ValueError, ImportError) as error:
        raise CorpusError(f"source {redact(path)}: can't be opened: {one_line(error)}") from error
    if STDLIB in path:
        root = PurePosixPath(sysconfig.get_path("stdlib"))
        found = {name: info for name, info in found.items() if _of_the_release(PurePosixPath(name).relative_to(root))}
    if not found:
        wanted = " or ".join(_SUFFIXES.get(format, ("any name",)))
        raise CorpusError(
            f"source {redact(path)}: no file there; a file, a glob, or a directory with files of {wanted} would do"
        )
    return [SourceFile(fs, name, info) for name, info in sorted(found.items())]


def _of_the_release(path: PurePosixPath) -> bool:
    """Whether a file below the library is the same wherever this Python release is."""
    directories = path.parts[:-1]
    return (
        not _NOT_STDLIB & set(path.parts)
        and not any(name.startswith(_BUILD_DIRECTORY) for name in directories)
        and not path.name.startswith(_BUILD_FILES)
    )


def _in_stdlib(path: str) -> bool:
    """Whether a path is a glob below Python's own library, whose other parts are not to be looked at."""
    return path.startswith(STDLIB) and has_magic(path)


def _stdlib_listing(place: str) -> dict[str, Any]:
    # Not by fsspec, which lists added packages too: with torch among them they are fifty times as many.
    matches = re.compile(glob_translate(place)).match
    found: dict[str, Any] = {}
    for directory, names, files in os.walk(sysconfig.get_path("stdlib")):
        names[:] = [name for name in names if name not in _NOT_STDLIB]
        paths = (os.path.join(directory, name) for name in files)
        found |= dict.fromkeys(path for path in paths if matches(path))
    return found


def _listing(fs: AbstractFileSystem, place: str, format: str) -> dict[str, Any]:
    if fs.isfile(place):
        return {place: fs.info(place)}
    if fs.isdir(place):
        below = fs.find(place, detail=True).items()
        return {name: info for name, info in below if not _hidden(name, place) and _fits(name, format)}
    return {name: info for name, info in fs.glob(place, detail=True).items() if info["type"] == "file"}


def _hidden(name: str, place: str) -> bool:
    return any(part.startswith(".") for part in name[len(place) :].split("/"))


def _fits(name: str, format: str) -> bool:
    suffixes = _SUFFIXES.get(format)
    if suffixes is None:
        return True
    if format == "jsonl" and infer_compression(name) is not None:
        name = name.rpartition(".")[0]
    return name.endswith(suffixes)


def expand_home(path: str) -> str:
    """A leading `~` as the user's home directory; URLs and hub ids stay as they are."""
    return path if "://" in path else os.path.expanduser(path)


def one_line(error: BaseException) -> str:
    """An error's text without line breaks, its class where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
