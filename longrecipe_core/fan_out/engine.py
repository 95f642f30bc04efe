"""What a stage asks of whatever runs its shards."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

Inputs = Mapping[str, Path]
"""Local directories by the names of a stage's inputs, as `base` or `tokenize`."""

Job = TypeVar("Job")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs a function over jobs, here or on other machines."""

    def each(self, function: Callable[[Inputs, Job], Result], jobs: Iterable[Job], inputs: Inputs) -> Iterator[Result]:
        """The function's results, in the order of the jobs; few jobs and results exist at a time.

        Args:
            function: of a module, so that another process finds it by name. It must depend on its arguments
                only: it is called again where a worker died, and on a machine that has other directories.
            jobs: small enough to be sent; taken one by one.
            inputs: where the stage's inputs lie on this machine; a function on another one gets that one's.

        Raises:
            FanOutError: A shard's worker died several times.
        """
        ...
