"""Small records written so that of several writers exactly one wins, on every kind of filesystem.

Local files: hard links for creation (`flock` where there are none), `flock` for replacement. S3: conditional PUT
(If-None-Match, If-Match). `memory://`: a lock of this process. Other remote filesystems get what their
`pipe_file(mode="create")` gives. A record's bytes must be unique to its writer: reading back one's own
bytes is how an uncertain write is settled.
"""

import contextlib
import errno
import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from longrecipe_core.artifacts.location import is_local

logger = logging.getLogger(__name__)

_MEMORY_LOCK = threading.RLock()
_REMOTE_TRIES = 4
# What filesystems without hard links say to one: some of FUSE, SMB and FAT.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


def read_if_present(fs: AbstractFileSystem, path: str) -> bytes | None:
    """The file's bytes, or None when there is no such file."""
    try:
        data: bytes = Path(path).read_bytes() if is_local(fs) else fs.cat_file(path)
    except FileNotFoundError:
        return None
    return data


def create_exclusively(fs: AbstractFileSystem, path: str, data: bytes) -> bool:
    """Create a file that did not exist, whole or not at all. False when another writer's file is already
    there.
    """
    if is_local(fs):
        return _create_local(path, data)
    if isinstance(fs, MemoryFileSystem):
        with _MEMORY_LOCK:
            if fs.exists(path):
                return False
            fs.pipe_file(path, data)
            return True
    for trial in range(_REMOTE_TRIES):
        try:
            fs.pipe_file(path, data, mode="create")
            return True
        except OSError:
            # "Exists already" looks different from server to server, a client's own retry of a PUT that had
            # arrived looks like it too, and AWS answers 409 to two at once: only what lies there now tells.
            present = read_if_present(fs, path)
            if present is not None:
                return present == data
            if trial == _REMOTE_TRIES - 1:
                raise
            time.sleep(0.1 * 2**trial)
    raise AssertionError("unreachable")


def replace(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a file over whatever is there; readers see the old bytes or the new, never a mixture."""
    if is_local(fs):
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            _write_durably(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        fsync_directory(os.path.dirname(path))
    else:
        fs.pipe_file(path, data)


def swap(fs: AbstractFileSystem, path: str, expected: bytes, data: bytes) -> bool:
    """Replace the file's bytes if they are exactly `expected`. False when they are not (any more)."""
    if is_local(fs):
        with _file_lock(f"{path}.lock"):
            if read_if_present(fs, path) != expected:
                return False
            replace(fs, path, data)
            return True
    if isinstance(fs, MemoryFileSystem):
        with _MEMORY_LOCK:
            if read_if_present(fs, path) != expected:
                return False
            fs.pipe_file(path, data)
            return True
    return _swap_remote(fs, path, expected, data)


def _swap_remote(fs: AbstractFileSystem, path: str, expected: bytes, data: bytes) -> bool:
    # The ETag is asked for before the bytes: a change in between shows in the bytes, a later one in the ETag.
    try:
        etag = fs.info(path).get("ETag")
    except FileNotFoundError:
        return False
    if read_if_present(fs, path) != expected:
        return False
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    condition = {"IfMatch": etag} if etag and "s3" in protocols else {}
    try:
        fs.pipe_file(path, data, **condition)
    except OSError:
        present = read_if_present(fs, path)
        if present == expected:
            raise  # not a lost race: the write itself failed
        return present == data
    # A server that ignores If-Match lets two through; the later one stands, and the earlier sees it here.
    return read_if_present(fs, path) == data


def move_aside(fs: AbstractFileSystem, path: str, data: bytes, aside: str, reason: str) -> bool:
    """Rename the file that holds exactly `data` to `aside`, the reason beside it. False when it isn't
    there.
    """
    if is_local(fs):
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return False  # another process was faster
        if Path(aside).read_bytes() != data:
            # A new one was written since `data` was read: that one stays.
            _create_local(path, Path(aside).read_bytes())
            os.unlink(aside)
            return False
        fsync_directory(os.path.dirname(path))
    else:
        fs.pipe_file(aside, data)
        if read_if_present(fs, path) != data:
            fs.rm_file(aside)
            return False
        fs.rm_file(path)
    fs.pipe_file(f"{aside}.reason.txt", f"{reason}\n".encode())
    return True


def fsync_directory(path: str) -> None:
    """Make the names in a local directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_local(path: str, data: bytes) -> bool:
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        _write_durably(temporary, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            # Over NFS a repeated request fails although its first copy made the link.
            return Path(path).read_bytes() == data
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with _file_lock(f"{path}.lock"):
                if os.path.exists(path):
                    return False
                os.rename(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    fsync_directory(os.path.dirname(path))
    return True


def _write_durably(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _file_lock(path: str) -> Iterator[None]:
    # The lock file stays: to delete it would let two processes lock two files of one name.
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            # Some cluster filesystems are mounted without flock. The reading back in a lease's next heartbeat
            # still finds a double owner, only later.
            logger.warning("no file lock on %s (%s): going on without", path, error)
        yield
