"""Slots of a global concurrency limit of Prefect's: jobs of many runs share a number of GPUs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL

from longrecipe_core.errors import SlotsError
from tasks.run import Work

AT_ONCE_SECONDS = 2.0
"""Slots that are not had within are waited for, which the log tells."""


@contextmanager
def gpu_slots(work: Work, slots: int) -> Iterator[None]:
    """Hold `slots` slots of the limit that `launch.gpu_limit` names, waiting for them as long as it takes.

    Nothing is held where the recipe names none, or where no Prefect server is configured. Slots of a process that died
    come back when Prefect's lease on them ends, five minutes after its last sign of life at most. A server that can't
    be reached meanwhile does not end the job.

    Raises:
        SlotsError: There is no such limit, it has fewer slots at all, or the server can't be asked.
    """
    limit = work.run.recipe.launch.gpu_limit
    if limit is None:
        yield
        return
    if PREFECT_API_URL.value() is None:
        work.log(f"{work.stage.name}: no Prefect server is configured, so launch.gpu_limit {limit} limits nothing")
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(_slots(limit, slots, AT_ONCE_SECONDS))
        except AcquireConcurrencySlotTimeoutError:
            work.log(f"{work.stage.name}: waits for {slots} slots of launch.gpu_limit {limit}")
            held.enter_context(_slots(limit, slots, None))
            work.lease.check()
        yield


@contextmanager
def _slots(limit: str, slots: int, timeout: float | None) -> Iterator[None]:
    held = concurrency(
        limit,
        occupy=slots,
        timeout_seconds=timeout,
        strict=True,  # else a limit that is missing lets everybody in
        raise_on_lease_renewal_failure=False,  # else a server that restarts ends a long training
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(held)
        except ConcurrencySlotAcquisitionError as error:
            reason = str(error)
            if error.__cause__ is None:
                reason = "there is no such limit: run `python -m deployments.set_up`, or give launch.gpu_limit none"
            elif "greater than the limit" in reason:
                reason = "the limit has fewer at all: raise it on Prefect's page of concurrency limits"
            raise SlotsError(f"{slots} slots of launch.gpu_limit {limit}: {reason}") from error
        yield
