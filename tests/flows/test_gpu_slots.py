"""Slots of a concurrency limit, by Prefect's own server."""

import contextvars
import threading
from contextlib import ExitStack

import pytest
import yaml
from polling import PATIENCE, wait_until
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from smallest_recipe import RECIPE

from flows.extend_context import extend_context
from flows.parameters import parameters_of
from longrecipe_core.artifacts import Lease, fingerprint
from longrecipe_core.errors import SlotsError, SlotsUnreachableError
from longrecipe_core.recipe import Recipe
from tasks.gpu_slots import gpu_slots
from tasks.retries import is_curable
from tasks.run import Run, Work
from tasks.stages import STAGES

LIMIT = "gpu-test"
# Nobody listens on port 9.
GONE = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}


@pytest.fixture(scope="module")
def limit(prefect_api):
    """A limit of two slots; returns how many are taken."""
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=2))
        yield lambda: client.read_global_concurrency_limit_by_name(LIMIT).active_slots


@pytest.fixture
def work(tmp_path):
    """Makes the work of a stage whose recipe names a limit; its log is a list."""
    held = []

    def make(name, stage):
        recipe = Recipe.parse(yaml.safe_dump(RECIPE), [f"launch.gpu_limit={name}"])
        run = Run(recipe=recipe, store=str(tmp_path / "store"))
        store, key, lines = run.open_store(), fingerprint(stage), []
        held.append(Lease(store, key))
        held[-1].acquire()
        return Work(run, store, STAGES[stage], key, {}, tmp_path / stage, lines.append, held[-1]), lines

    yield make
    for lease in held:
        lease.release()


def test_slots_are_held_for_as_long_as_the_job_runs_also_if_it_fails(limit, work):
    one, lines = work(LIMIT, "extend")
    with gpu_slots(one, 2):
        assert limit() == 2
    assert limit() == 0
    with pytest.raises(ZeroDivisionError), gpu_slots(one, 1):
        limit() / (limit() - 1)
    assert limit() == 0
    assert lines == []


def test_slots_that_are_taken_are_waited_for_and_the_log_tells_it_once(limit, work):
    (first, _), (second, lines) = work(LIMIT, "extend"), work(LIMIT, "anneal")
    got = threading.Event()

    def follow():
        with gpu_slots(second, 1):
            got.set()

    with gpu_slots(first, 2):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(follow,))
        thread.start()
        wait_until(lambda: lines)
        assert not got.is_set()
    thread.join(PATIENCE)
    assert got.is_set()
    assert lines == [f"anneal: waits for slots of launch.gpu_limit {LIMIT}: 1"]
    assert limit() == 0


def test_a_server_that_is_gone_when_the_job_ends_costs_nothing(limit, work):
    one, lines = work("gpu-lost", "extend")
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu-lost", limit=1))
    with ExitStack() as after, gpu_slots(one, 1):
        after.enter_context(temporary_settings(GONE))
    (line,) = lines
    assert line.startswith("extend: slots of gpu-lost come back when Prefect's lease on them ends: ConnectError")


def test_a_server_that_is_gone_when_slots_are_asked_for_is_told_as_such(limit, work):
    one, _ = work("gpu-gone", "extend")  # Prefect keeps the client of a limit that was asked for before
    with temporary_settings(GONE), pytest.raises(SlotsUnreachableError) as caught, gpu_slots(one, 1):
        pytest.fail("was let in")
    (line,) = str(caught.value).splitlines()
    assert "Prefect's server http://127.0.0.1:9/api can't be reached" in line
    assert is_curable(caught.value)


@pytest.mark.parametrize(("name", "slots", "told"), [("none-such", 1, "set_up"), (LIMIT, 3, "fewer at all")])
def test_slots_that_can_t_be_had_are_one_line(limit, work, name, slots, told):
    one, _ = work(name, "extend")
    with pytest.raises(SlotsError) as caught, gpu_slots(one, slots):
        pytest.fail("was let in")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"launch.gpu_limit {name}, of which {slots} are needed: ")
    assert told in line


@pytest.mark.parametrize(
    ("change", "slots"),
    [(["anneal.learning_rate=1e-4", "launch.processes=2"], 2), (["evaluation.buckets=2"], 1)],
    ids=["training", "evaluation"],
)
def test_jobs_ask_for_their_slots_before_they_start(limit, store, recipe_file, change, slots):
    """A limit that is not there shows that they ask, and for how many."""
    recipe = Recipe.load(recipe_file, [*change, "launch.gpu_limit=none-such"])
    with pytest.raises(
        SlotsError, match=f"launch.gpu_limit none-such, of which {slots} are needed: there is no such limit"
    ):
        extend_context(**parameters_of(recipe), store=str(store))
