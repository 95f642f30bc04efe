"""Workers on this machine."""

import functools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from longrecipe_core.errors import FanOutError
from longrecipe_core.fan_out.engine import Engine, Inputs, Job, Result

ATTEMPTS = 3
Log = Callable[[str], None]


def local_engine(workers: int, log: Log = lambda line: None) -> Engine:
    """This process for one worker, processes of their own for more."""
    return Here() if workers == 1 else Processes(workers, log)


class Here:
    """No worker at all: each shard in its turn in this process."""

    def each(self, function: Callable[[Inputs, Job], Result], jobs: Iterable[Job], inputs: Inputs) -> Iterator[Result]:
        """See `Engine.each`."""
        for job in jobs:
            yield function(inputs, job)


class Processes:
    """So many processes. Each is a pool of its own, since a pool whose only worker dies loses that one's shard only."""

    def __init__(self, workers: int, log: Log = lambda line: None) -> None:
        self._workers = workers
        self._log = log

    def each(self, function: Callable[[Inputs, Job], Result], jobs: Iterable[Job], inputs: Inputs) -> Iterator[Result]:
        """See `Engine.each`; at most two jobs per worker are under way."""
        pools = _Pools(self._workers)
        threads = ThreadPoolExecutor(self._workers, thread_name_prefix="shards")
        pending: deque[Future[Result]] = deque()
        try:
            for number, job in enumerate(jobs):
                pending.append(threads.submit(self._run, pools, functools.partial(function, inputs, job), number))
                if len(pending) == 2 * self._workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pools.close()
            threads.shutdown(cancel_futures=True)

    def _run(self, pools: "_Pools", call: Callable[[], Result], number: int) -> Result:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return pools.mine().submit(call).result()
            except BrokenProcessPool:
                pools.drop()
                if pools.closed:
                    raise
                self._log(f"the worker of shard {number} died; attempt {attempt} of {ATTEMPTS}")
        raise FanOutError(
            f"shard {number}: its worker died {ATTEMPTS} times (killed for memory?); "
            f"fewer launch.workers leave more memory to each"
        )


class _Pools:
    """A pool of one process per thread, so that a death is told to the one whose shard it was."""

    def __init__(self, workers: int) -> None:
        self._mine = threading.local()
        self._all: list[ProcessPoolExecutor] = []
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self.closed = False

    def mine(self) -> ProcessPoolExecutor:
        """The calling thread's own; its process starts with the first job."""
        pool: ProcessPoolExecutor | None = getattr(self._mine, "pool", None)
        if pool is None:
            # spawn: a fork would copy the locks of threads that Arrow and the caller have started.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(self._threads,))
            self._mine.pool = pool
            self._all.append(pool)
        return pool

    def drop(self) -> None:
        """Forget the calling thread's pool."""
        self._mine.pool = None

    def close(self) -> None:
        """End all processes, also those in the midst of a shard that nobody waits for any more."""
        self.closed = True
        for pool in self._all:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()


def _begin(threads: int) -> None:
    # Before any library reads it: workers share the cores instead of each taking all of them.
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: "multiprocessing.process.BaseProcess") -> None:
    """A worker whose parent was killed would wait for its next job for ever."""
    parent.join()
    os._exit(1)
