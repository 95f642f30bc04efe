"""Results in the order of the jobs, with few jobs under way at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from longrecipe_core.fan_out.engine import Job, Result


def in_order(submit: Callable[[int, Job], Callable[[], Result]], jobs: Iterable[Job], window: int) -> Iterator[Result]:
    """Submit each job with its number and yield the results in order, at most `window` jobs ahead of the consumer.

    Args:
        submit: starts a job and returns what waits for its result.
        jobs: taken one by one. Should they raise, the results before come first, and errors of those jobs too: what
            the caller meets first is the same for any number of workers.
        window: jobs under way, 1 or more.
    """
    pending: deque[Callable[[], Result]] = deque()
    source = enumerate(jobs)
    failure: Exception | None = None
    while True:
        try:
            number, job = next(source)
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001
            failure = error
            break
        pending.append(submit(number, job))
        del job  # the consumer may take long over a result
        if len(pending) == window:
            yield pending.popleft()()
    while pending:
        yield pending.popleft()()
    if failure is not None:
        raise failure
