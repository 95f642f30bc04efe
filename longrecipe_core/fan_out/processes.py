"""Workers on this machine."""

import functools
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from longrecipe_core.errors import FanOutError
from longrecipe_core.fan_out.engine import Engine, Inputs, Job, Result
from longrecipe_core.fan_out.window import in_order
from longrecipe_core.fan_out.worker import Worker, WorkerDiedError

ATTEMPTS = 3
MOST_BY_DEFAULT = 8
Log = Callable[[str], None]


def local_engine(workers: int | None, log: Log = lambda line: None) -> Engine:
    """This process for one worker, processes of their own for more, and as many as it takes when not given."""
    if workers is None:
        return AsNeeded(log)
    return Here() if workers == 1 else Processes(workers, log)


def default_workers() -> int:
    """One per core; 8 at most, since each takes memory of its own."""
    return min(cores(), MOST_BY_DEFAULT)


class Here:
    """No worker at all: each shard in its turn in this process."""

    def each(self, function: Callable[[Inputs, Job], Result], jobs: Iterable[Job], inputs: Inputs) -> Iterator[Result]:
        """See `Engine.each`."""
        for job in jobs:
            yield function(inputs, job)


class Processes:
    """So many processes, which live as long as one call of `each`; a dead one is replaced and costs its shard only."""

    def __init__(self, workers: int, log: Log = lambda line: None) -> None:
        self._workers = workers
        self._log = log

    def each(self, function: Callable[[Inputs, Job], Result], jobs: Iterable[Job], inputs: Inputs) -> Iterator[Result]:
        """See `Engine.each`; at most two jobs per worker are under way. Closing the iterator ends the workers."""
        slots = _Slots(self._workers)
        threads = ThreadPoolExecutor(self._workers, thread_name_prefix="shards")

        def submit(number: int, job: Job) -> Callable[[], Result]:
            return threads.submit(self._run, slots, functools.partial(function, inputs, job), number).result

        try:
            yield from in_order(submit, jobs, 2 * self._workers)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            slots.kill()
            threads.shutdown()  # each meets its worker's death
            slots.end()

    def _run(self, slots: "_Slots", call: Callable[[], Result], number: int) -> Result:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                result: Result = slots.run(call)
                return result
            except WorkerDiedError as error:
                if slots.closed:
                    raise
                death = str(error)
                self._log(f"shard {number}: its worker {death}; attempt {attempt} of {ATTEMPTS}")
        raise FanOutError(
            f"shard {number}: its worker {death}, {ATTEMPTS} times in a row (for memory?); "
            f"fewer launch.workers leave more memory to each"
        )


class AsNeeded:
    """This process for a single job, which no worker would be worth its start; else a process per core."""

    def __init__(self, log: Log = lambda line: None) -> None:
        self._log = log

    def each(self, function: Callable[[Inputs, Job], Result], jobs: Iterable[Job], inputs: Inputs) -> Iterator[Result]:
        """See `Engine.each`."""
        first: list[Job] = []
        source = iter(jobs)
        try:
            first.extend(itertools.islice(source, 2))
        except Exception as error:  # noqa: BLE001 - told after the results of the jobs before
            source = _raises(error)
        engine = Here() if len(first) < 2 else local_engine(default_workers(), self._log)
        yield from engine.each(function, itertools.chain(first, source), inputs)


def _raises(error: Exception) -> Iterator[Any]:
    raise error
    yield


class _Slots:
    """A fixed number of workers; each starts with its first call."""

    def __init__(self, workers: int) -> None:
        self._threads = max(1, cores() // workers)
        self._free: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._free.put(None)
        self._living: set[Worker] = set()
        self._lock = threading.Lock()
        self.closed = False

    def run(self, call: Callable[[], Result]) -> Result:
        """The call's result from any free worker. Raises WorkerDiedError, also after `kill`."""
        worker = self._free.get()
        try:
            worker = worker or self._start()
            result: Result = worker.run(call)
            return result
        except WorkerDiedError:
            if worker is not None:
                with self._lock:
                    self._living.discard(worker)
            worker = None
            raise
        finally:
            self._free.put(worker)

    def _start(self) -> Worker:
        with self._lock:
            if self.closed:
                raise WorkerDiedError("did not start: the iterator was closed")
            worker = Worker(self._threads)
            self._living.add(worker)
            return worker

    def kill(self) -> None:
        """Kill all workers, also those in the midst of a shard; none is started any more."""
        with self._lock:
            self.closed = True
            for worker in self._living:
                worker.kill()

    def end(self) -> None:
        """Wait until all are gone; after `kill`, and when no call is under way."""
        for worker in self._living:
            worker.end()


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
