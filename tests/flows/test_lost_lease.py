"""A lease that can't be renewed ends no run of our flows."""

import asyncio
import contextlib
import logging
import threading
import time
import uuid

import pytest
from polling import PATIENCE
from prefect import flow, flow_engine
from prefect.client.orchestration import get_client
from prefect.concurrency import _leases
from prefect.context import FlowRunContext
from prefect.states import Pending

import flows.extend_context


class Refusing(logging.Handler):
    """A server's client that renews nothing, and what is logged of it."""

    def __init__(self):
        super().__init__()
        self.warned, self.records = threading.Event(), []

    def renew_concurrency_lease(self, **options):
        raise ConnectionError(f"lease forgotten: {options['lease_id']}")

    def emit(self, record):
        self.records.append(record)
        if "slots are no longer reserved" in record.getMessage():
            self.warned.set()


@pytest.fixture
def refusing(monkeypatch):
    handler = Refusing()
    monkeypatch.setattr(_leases, "get_client", lambda **_: contextlib.nullcontext(handler))
    monkeypatch.setattr(_leases, "_RENEWAL_RETRY_BASE_DELAY", 0.01)
    logger = logging.getLogger("prefect.concurrency")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def maintained(name, lease):
    """As Prefect's flow engine calls it."""
    return vars(flow_engine)[name](lease, 300, raise_on_lease_renewal_failure=True)


def the_last(refusing):
    return next(record for record in refusing.records if "no longer reserved" in record.getMessage())


def test_a_run_goes_on_and_says_so(refusing):
    lease, steps = uuid.uuid4(), 0
    with maintained("maintain_concurrency_lease", lease):
        assert refusing.warned.wait(PATIENCE)
        for _ in range(20):  # a cancellation would come between two of these
            time.sleep(0.01)
            steps += 1
    assert steps == 20
    assert the_last(refusing).levelno == logging.WARNING
    assert f"lease forgotten: {lease}" in the_last(refusing).getMessage()


def test_so_does_an_asynchronous_one(refusing):
    async def run():
        async with maintained("amaintain_concurrency_lease", uuid.uuid4()):
            while not refusing.warned.is_set():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            return "done"

    assert asyncio.run(asyncio.wait_for(run(), PATIENCE)) == "done"
    assert the_last(refusing).levelno == logging.WARNING


def test_once_is_enough():
    before = [vars(flow_engine)[name] for name in flows.lost_lease.RENEWING]
    flows.parameters.recipe_parameters(lambda run: run)
    assert [vars(flow_engine)[name] for name in flows.lost_lease.RENEWING] == before
    assert [function.raises for function in before] == [
        _leases.maintain_concurrency_lease,
        _leases.amaintain_concurrency_lease,
    ]


def test_a_deployment_s_run_outlives_its_place_which_the_server_forgets(prefect_api, monkeypatch):
    """With Prefect's own engine and server; the lease is given back behind the run's back."""
    monkeypatch.setattr(_leases, "_RENEWAL_FRACTION", 0.003)  # about a second
    monkeypatch.setattr(_leases, "_RENEWAL_RETRY_BASE_DELAY", 0.01)
    told = Refusing()
    logging.getLogger("prefect.flow_runs").addHandler(told)  # what is in the run's own log

    @flow
    def forgotten():
        lease = FlowRunContext.get().flow_run.state.state_details.deployment_concurrency_lease_id
        with get_client(sync_client=True) as client:
            client.release_concurrency_slots_with_lease(lease)
        assert told.warned.wait(PATIENCE)
        for _ in range(20):
            time.sleep(0.01)
        return str(lease)

    try:
        with get_client(sync_client=True) as client:
            deployment = client.create_deployment(client.create_flow(forgotten), "limited", concurrency_limit=1)
            run = client.create_flow_run_from_deployment(deployment)
            client.set_flow_run_state(run.id, Pending())  # as a worker does: the server gives the place
            lease = flow_engine.run_flow(forgotten, flow_run=client.read_flow_run(run.id))
            assert client.read_flow_run(run.id).state.name == "Completed"
    finally:
        logging.getLogger("prefect.flow_runs").removeHandler(told)
    assert lease in the_last(told).getMessage()
    assert the_last(told).levelno == logging.WARNING
