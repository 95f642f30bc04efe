"""A file's bytes as a stream, decompressed, in bounded memory; a damaged file told from storage that fails.

A file that is cut short may be skipped where the recipe says so. Storage that doesn't answer may not: its
rows would be missing in silence. Both come up as the same kinds of exceptions, often `OSError`, so whatever
the storage itself raises is turned into a `CorpusError` before a decompressor or a parser sees it.
"""

import errno
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import pyarrow as pa
from fsspec.compression import compr

from longrecipe_core.corpus.bad_data import BadFileError
from longrecipe_core.corpus.files import SourceFile, one_line
from longrecipe_core.errors import CorpusError

# What decompressors and Arrow raise for bytes that are not what they should be.
DAMAGE_ERRORS = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)
_BUFFER = 1 << 20
# What a decompressor is asked for at a time. What it has of such a part when it meets the damage is lost with it.
_PART = 1 << 13


class _Storage(io.RawIOBase):
    """A file of the storage, whose own errors end the stage."""

    def __init__(self, file: SourceFile) -> None:
        self._name = file.name
        self._stream: Any = None
        self._stream = self._try(lambda: file.fs.open(file.path, "rb"))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._try(self._stream.seekable))

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._try(lambda: self._stream.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            if whence == io.SEEK_END:
                self._try(lambda: self._stream.seek(0, io.SEEK_END))
            offset += self.tell()
        if offset < 0:  # a damaged file can send its reader there, and the storage is not to blame
            raise OSError(errno.EINVAL, "shorter than it says")
        return int(self._try(lambda: self._stream.seek(offset)))

    def tell(self) -> int:
        return int(self._try(self._stream.tell))

    def close(self) -> None:
        if self._stream is not None and not self.closed:
            self._stream.close()
        super().close()

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except Exception as error:  # which classes a filesystem raises is up to its client library
            raise CorpusError(f"{self._name}: can't be read: {one_line(error)}") from error


class _Decompressed(io.RawIOBase):
    """What a decompressor gives, in small parts, so that what came before the damage is out when it is met.

    A buffer that asks for more loses what it has when an error comes while it is being filled.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._stream.read1(min(len(buffer), _PART))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


@contextmanager
def open_raw(file: SourceFile) -> Iterator[io.BufferedReader]:
    """The file's bytes as they are stored.

    Raises:
        CorpusError: the storage fails, now or at any later read.
    """
    with cast(io.BufferedReader, io.BufferedReader(_Storage(file), _BUFFER)) as stream:
        yield stream


@contextmanager
def open_decompressed(file: SourceFile) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed as its name says, a part at a time.

    Raises:
        CorpusError: the storage fails, or a zip archive holds several files.
        *DAMAGE_ERRORS: here or at a later read, the bytes are no whole file of that compression.
    """
    with open_raw(file) as raw:
        if file.compression is None:
            yield raw
            return
        # Of every compression nothing takes some bytes, but not every decompressor says so.
        if not raw.peek(1):
            raise EOFError("an empty file")
        with io.BufferedReader(_Decompressed(_decompressor(file, raw)), _BUFFER) as stream:
            yield stream


def _decompressor(file: SourceFile, raw: BinaryIO) -> Any:
    if file.compression == "zstd":
        # The zstandard package, which fsspec takes, reads a file that is cut short, or that has several frames,
        # to where it gets and reports no error.
        return pa.CompressedInputStream(raw, "zstd")
    if file.compression == "zip":
        return _zip_member(file, raw)
    return compr[file.compression](raw, mode="rb")


def _zip_member(file: SourceFile, raw: BinaryIO) -> Any:
    try:
        archive = zipfile.ZipFile(raw)
        members = archive.infolist()
        if len(members) == 1:
            return archive.open(members[0])
    except RuntimeError as error:  # it is encrypted, or (NotImplementedError) packed in a way that Python can't read
        raise zipfile.BadZipFile(str(error)) from error
    raise CorpusError(f"{file.name}: a zip archive of one file expected; it has {len(members)}: unpack it")


def read_limited(file: SourceFile, longest: int) -> bytes | BadFileError:
    """A whole file, decompressed, or why it can't be had: `damaged`, or `oversized` above `longest` bytes."""
    try:
        with open_decompressed(file) as stream:
            content = stream.read(longest + 1)
    except DAMAGE_ERRORS as error:
        return BadFileError("damaged", f"{file.name}: can't be read (cut short?): {one_line(error)}")
    if len(content) > longest:
        return BadFileError("oversized", f"{file.name}: {oversized(longest)}")
    return content


def oversized(longest: int) -> str:
    """The end of a message about a row above the limit."""
    return f"above longest_row, {longest} bytes; raise it, or skip such rows with bad_rows: skip"
