"""Slots of a global concurrency limit of Prefect's: jobs of many runs share a number of GPUs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL

from longrecipe_core.errors import SlotsError, SlotsUnreachableError
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
        SlotsError: There is no such limit, or it has fewer slots at all.
        SlotsUnreachableError: The server did not answer for as long as Prefect's client asks, about a minute.
    """
    limit = work.run.recipe.launch.gpu_limit
    if limit is None:
        yield
        return
    if PREFECT_API_URL.value() is None:
        work.log(f"{work.stage.name}: no Prefect server is configured, so launch.gpu_limit {limit} limits nothing")
        yield
        return
    held = ExitStack()
    try:
        held.enter_context(_slots(limit, slots, AT_ONCE_SECONDS))
    except AcquireConcurrencySlotTimeoutError:
        work.log(f"{work.stage.name}: waits for slots of launch.gpu_limit {limit}: {slots}")
        held.enter_context(_slots(limit, slots, None))
    try:
        work.lease.check()
        yield
    finally:
        try:
            held.close()
        except Exception as error:  # noqa: BLE001 - whatever ails the server, the job's work is not lost
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            work.log(f"{work.stage.name}: slots of {limit} come back when Prefect's lease on them ends: {reason}")


@contextmanager
def _slots(limit: str, slots: int, timeout: float | None) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(
                concurrency(
                    limit,
                    occupy=slots,
                    timeout_seconds=timeout,
                    strict=True,  # else a limit that is missing lets everybody in
                    raise_on_lease_renewal_failure=False,  # else a server that restarts ends a long training
                )
            )
        except ConcurrencySlotAcquisitionError as error:
            reason = str(error)
            if isinstance(error.__cause__, httpx.TransportError):
                raise SlotsUnreachableError(
                    f"launch.gpu_limit {limit}, of which {slots} are needed: Prefect's server "
                    f"{PREFECT_API_URL.value()} can't be reached: {error.__cause__}"
                ) from error
            if error.__cause__ is None:
                reason = "there is no such limit: run `python -m deployments.set_up`, or set launch.gpu_limit to null"
            elif "greater than the limit" in reason:
                reason = "the limit has fewer at all: raise it on Prefect's page of concurrency limits"
            raise SlotsError(f"launch.gpu_limit {limit}, of which {slots} are needed: {reason}") from error
        yield
