"""Which workers run a stage's shards: processes of this machine, or a Ray cluster through prefect-ray."""

import contextlib
import functools
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from longrecipe_core.artifacts import ArtifactRef
from longrecipe_core.errors import FanOutError
from longrecipe_core.fan_out import ATTEMPTS, Engine, Inputs, default_workers, in_order, local_engine, portable
from longrecipe_core.fan_out.engine import Job, Result
from longrecipe_core.recipe.checks import chosen_engine
from tasks.run import Run, Work, fetch_input

if TYPE_CHECKING:
    from prefect_ray import RayTaskRunner

OBJECT_STORE_BYTES = 200 * 2**20
"""Of a cluster that is started here; Ray's default is a third of the machine's memory, and shards are small."""

WORKER_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A line per shard is too much for the run's log; what goes wrong with one comes back as an exception.
    "PREFECT_LOGGING_LEVEL": "WARNING",
    # A shard is given one CPU.
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
}


def engine(work: Work) -> Engine:
    """Processes of this machine, or Ray workers: as the recipe or the environment says.

    Raises RecipeError for another name in LONGRECIPE_ENGINE, and for Ray where it is not installed.
    """
    launch = work.run.recipe.launch
    return Ray(work) if chosen_engine(launch) == "ray" else local_engine(launch.workers, work.log)


class Ray:
    """Each shard is a Prefect task on a Ray worker, where the stage's inputs are fetched from the store.

    A worker that is killed takes its Prefect task with it, so Prefect's own retries never happen; and what Ray
    retries by itself nobody is told. So neither is asked to: the shard is submitted again, and the log tells it.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._address = work.run.recipe.launch.ray_address or os.environ.get("RAY_ADDRESS") or None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self._address is None:
            # Ray's own switch, in spite of its name, for a cluster on the loopback interface alone; read on import.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

    def each(self, function: Callable[[Inputs, Job], Result], jobs: Iterable[Job], inputs: Inputs) -> Iterator[Result]:
        """See `Engine.each`; at most two jobs per CPU of the cluster are under way.

        Inputs that are no artifacts of the stage exist on this machine only: then its processes do the work.
        """
        launch, log = self._work.run.recipe.launch, self._work.log
        refs = self._references(inputs)
        if refs is None:
            log(f"{self._work.stage.name}: its inputs are on this machine only, and so are its workers")
            yield from local_engine(launch.workers, log).each(function, jobs, inputs)
            return
        run = Run(recipe=self._work.run.recipe, store=self._work.store.root)
        with self._runner() as runner:
            shards = _Shards(self._work, runner)

            def submit(number: int, job: Job) -> Callable[[], Result]:
                return shards.submit(number, _Call(run, refs, function, job))

            cpus = max(_cluster_cpus(), launch.workers or 1)
            log(f"{self._work.stage.name}: shards on Ray, {cpus} at a time")
            # What is under way when this is left early ends with the connection. ray.cancel would end it sooner, and
            # now and then this process too: Ray 2.60 aborts when a task that was just cancelled reports its end.
            yield from in_order(submit, jobs, 2 * cpus)

    def _references(self, inputs: Inputs) -> dict[str, ArtifactRef] | None:
        """The stage's inputs as a worker can fetch them, or None if one is something else."""
        found = {}
        for name, path in inputs.items():
            ref = self._work.inputs.get(name)
            if ref is None or self._work.fetch(name) != path:
                return None
            if ref.kind == "outside" and os.path.exists(ref.uri):
                ref = ref.model_copy(update={"uri": os.path.abspath(ref.uri)})  # workers run in other directories
            found[name] = ref
        return found

    @contextlib.contextmanager
    def _runner(self) -> Iterator["RayTaskRunner[Any]"]:
        from prefect_ray import RayTaskRunner

        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if self._address is None:
            own = {
                "num_cpus": self._work.run.recipe.launch.workers or default_workers(),
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
            }
            # "local", since Ray would take a cluster that somebody else has started on this machine.
            runner = RayTaskRunner("local", quiet | own)
        else:
            _refuse_deaf(self._address)
            runner = RayTaskRunner(self._address, quiet)
        with contextlib.ExitStack() as stack:
            try:
                with _signals_kept():
                    stack.enter_context(runner)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise FanOutError(f"Ray at {self._address or 'this machine'} can't be used: {error}") from error
            yield runner


class _Call:
    """What a worker is sent. No dataclass: Prefect would look for futures in every field, and so in every job."""

    def __init__(self, run: Run, refs: Mapping[str, ArtifactRef], function: Callable[..., Any], job: Any) -> None:
        self.run, self.refs, self.function, self.job = run, refs, function, job


class _Shards:
    """Prefect tasks on Ray, submitted again when their worker died."""

    def __init__(self, work: Work, runner: "RayTaskRunner[Any]") -> None:
        self._work, self._runner = work, runner
        # A server of this run's own would otherwise be started once more by each worker.
        self._api = get_client(sync_client=True).api_url
        _refuse_unreachable(str(self._api))
        self._under_way: dict[int, Any] = {}

    def submit(self, number: int, call: _Call) -> Callable[[], Any]:
        """Start a shard; returns what waits for its result."""
        self._start(number, call)
        return functools.partial(self._result, number, call)

    def _start(self, number: int, call: _Call) -> None:
        from prefect_ray.context import remote_options

        name = self._work.stage.name
        with (
            remote_options(max_retries=0, num_cpus=1, runtime_env={"env_vars": WORKER_ENVIRONMENT}),
            temporary_settings({PREFECT_API_URL: str(self._api)}),
        ):
            self._under_way[number] = self._runner.submit(run_shard, {"stage": name, "number": number, "call": call})

    def _result(self, number: int, call: _Call) -> Any:
        from ray import exceptions

        died = (
            exceptions.WorkerCrashedError,
            exceptions.OutOfMemoryError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
        )
        for attempt in range(1, ATTEMPTS + 1):
            try:
                result = self._under_way[number].result()
                del self._under_way[number]
                return result
            except died as error:
                death = type(error).__name__
                self._work.log(f"shard {number}: its Ray worker died ({death}); attempt {attempt} of {ATTEMPTS}")
                if attempt < ATTEMPTS:
                    self._start(number, call)
        del self._under_way[number]
        raise FanOutError(
            f"shard {number}: its Ray worker died ({death}), {ATTEMPTS} times in a row (for memory?); "
            f"Ray's own log tells more"
        )


@task(
    name="shard",
    task_run_name="{stage} · shard {number}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=0,
)
def run_shard(stage: str, number: int, call: _Call) -> Any:
    """On a worker: one shard, with inputs of this machine."""
    inputs = {name: _fetch(call.run.store, name, ref, call.run) for name, ref in call.refs.items()}
    try:
        return call.function(inputs, call.job)
    except Exception as error:  # noqa: BLE001
        raise portable(error) from None


_fetched: dict[tuple[str, ArtifactRef], Path] = {}


def _fetch(store: str, name: str, ref: ArtifactRef, run: Run) -> Path:
    # Verified once in the life of a worker.
    if (store, ref) not in _fetched:
        _fetched[store, ref] = fetch_input(run, run.open_store(), name, ref)
    return _fetched[store, ref]


def _cluster_cpus() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 1))


def _refuse_deaf(address: str) -> None:
    """Raise FanOutError where nobody listens: Ray itself would try for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=30).close()
        except OSError as error:
            raise FanOutError(f"no Ray cluster at {address}: {error}; see launch.ray_address, RAY_ADDRESS") from error


def _refuse_unreachable(api: str) -> None:
    """Raise FanOutError where workers on other machines would look for Prefect's server on their own."""
    import ray

    here = {"127.0.0.1", "localhost", ray.util.get_node_ip_address()}
    others = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]} - here
    if others and any(f"//{name}" in api for name in ("127.0.0.1", "localhost")):
        raise FanOutError(
            f"the Ray workers on {', '.join(sorted(others))} can't reach Prefect's server at {api}: "
            f"set PREFECT_API_URL to one that they reach"
        )


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, by which Prefect would cancel the run."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)
