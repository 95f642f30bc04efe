"""Where a store is: a filesystem and the path of its root there."""

import os
import re
from dataclasses import dataclass

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from longrecipe_core.errors import StoreError


@dataclass(frozen=True)
class Location:
    """A place on any fsspec filesystem; `path` is in that filesystem's own form, without a trailing slash."""

    fs: AbstractFileSystem
    path: str

    @property
    def local(self) -> bool:
        """Whether the operating system reaches it as a path."""
        return is_local(self.fs)

    def __truediv__(self, name: str) -> "Location":
        return Location(self.fs, f"{self.path}/{name}")

    def children(self) -> list[str]:
        """Names in this directory, sorted; none where there is no such directory."""
        try:
            if self.local:
                return sorted(os.listdir(self.path))
            paths = self.fs.ls(self.path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths)

    @property
    def uri(self) -> str:
        """A plain absolute path for local places (so that `Path` and `from_pretrained` take it too), else
        a URL.
        """
        return uri_of(self.fs, self.path)


def open_location(url: str | os.PathLike[str]) -> Location:
    """A location from a local path or any fsspec URL; credentials come from the environment, never from the
    URL.

    Raises StoreError for a URL that carries credentials or chains filesystems.
    """
    text = os.fspath(url)
    if "::" in text:
        raise StoreError(f"{redact(text)}: chained filesystems can't hold a store; give the plain URL")
    if redact(text) != text:
        raise StoreError(f"{redact(text)}: credentials don't belong in a URL; put them into the environment")
    if "://" not in text:
        text = os.path.abspath(os.path.expanduser(text))
    # Listing caches would hide what another process has just written.
    try:
        fs, path = url_to_fs(text, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise StoreError(f"{text}: no filesystem for this URL: {error}") from error
    if is_local(fs) and os.path.exists(path) and not os.path.isdir(path):
        raise StoreError(f"{text}: is a file; a directory is needed")
    return Location(fs, str(path).rstrip("/"))


def is_local(fs: AbstractFileSystem) -> bool:
    """Whether a filesystem is the operating system's own."""
    return isinstance(fs, LocalFileSystem)


def uri_of(fs: AbstractFileSystem, path: str) -> str:
    """A filesystem's path as `Location.uri` gives it."""
    if is_local(fs):
        return path
    return str(fs.unstrip_protocol(path.lstrip("/")))


def redact(url: str) -> str:
    """The URL without user, password and query, any of which may be a secret."""
    bare = re.sub(r"(?<=://)[^/]*@", "", url)  # everywhere: a chained URL has several
    if re.match(r"https?://|.*::https?://", bare):  # presigned links; elsewhere `?` is a glob or part of a name
        bare = re.sub(r"[?#].*", "", bare)
    return bare
