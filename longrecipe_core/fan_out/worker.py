"""A worker process: one shard after the other, for as long as its parent lives.

Started as a bare interpreter and not by `multiprocessing`, whose spawn runs the parent's main module again, and
only then what sets the number of threads.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

from longrecipe_core.errors import FanOutError

# With the parent's path for imports, and in this process alone: a variable would reach other interpreters, too.
COMMAND = "import sys; sys.path[:] = sys.argv[3:]; from longrecipe_core.fan_out.worker import main; main()"


class WorkerDiedError(Exception):
    """A worker ended before it gave a result; the message tells how."""


class Worker:
    """The parent's end of one worker process, which starts at once."""

    def __init__(self, threads: int) -> None:
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(theirs.fileno()), str(os.getpid()), *map(str, sys.path)],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a library prints is no part of a command's output
            pass_fds=[theirs.fileno()],
            # Read by libraries when they load: workers share the cores instead of each taking all of them.
            env={**os.environ, "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)},
        )
        theirs.close()  # so that the worker's death is the end of the stream

    def run(self, call: Callable[[], Any]) -> Any:
        """What the call returns, or its exception.

        Raises WorkerDiedError when the process ended in the midst of it.
        """
        request = pickle.dumps(call, pickle.HIGHEST_PROTOCOL)
        try:
            self._connection.send_bytes(request)
            answer = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            self.end()
            raise WorkerDiedError(_ending(self._process.returncode)) from error
        raised, result = pickle.loads(answer)
        if raised is not None:
            raise raised
        return result

    def kill(self) -> None:
        """Send SIGKILL; `run` in another thread then raises."""
        self._process.kill()

    def end(self) -> None:
        """Kill the process and wait until it is gone."""
        self._process.kill()  # it may have closed the stream and live
        self._process.wait()
        self._connection.close()


def main() -> None:
    """The worker's end: `sys.argv` has the stream's descriptor and the parent's process id."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    connection, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))


def _answer(request: bytes) -> bytes:
    try:
        return pickle.dumps((None, pickle.loads(request)()), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # noqa: BLE001
        return pickle.dumps((portable(error), None), pickle.HIGHEST_PROTOCOL)


def portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note, or, where its class can't be sent, a FanOutError with its text."""
    error.add_note("on a worker:\n" + "".join(traceback.format_exception(error)).rstrip())
    try:
        copy = pickle.loads(pickle.dumps(error, pickle.HIGHEST_PROTOCOL))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    except Exception as reason:  # noqa: BLE001
        error.add_note(f"it can't be sent: {reason}")
    told = FanOutError(f"{type(error).__qualname__}: {error}")
    for note in error.__notes__:
        told.add_note(note)
    return told


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, also in the midst of a shard, for which nobody waits any more."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
