"""Real Prefect servers and workers on loopback for tests: `with prefect_server(directory) as server`."""

import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from polling import PATIENCE, wait_until
from ports import free_port
from prefect_home import make_home

ROOT = Path(__file__).resolve().parents[2]
# By itself a server ends, or answers 503, when its database takes longer than 5 or 10 s.
PATIENT = {
    "PREFECT_SERVER_DATABASE_TIMEOUT": str(PATIENCE),
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": str(PATIENCE),
}
PREFECT = [sys.executable, "-m", "prefect"]


@dataclass(frozen=True)
class PrefectServer:
    """Where it is, and the environment of a process that is to be its client."""

    api: str
    environment: dict[str, str]
    log: Path
    process: psutil.Popen

    @property
    def ui(self) -> str:
        """The address of its pages."""
        return self.api.removesuffix("/api")

    def get(self, path: str) -> Any:
        """What the API answers, of a path such as `/health`; raises `urllib.error.HTTPError` for a refusal."""
        return self._request(urllib.request.Request(self.api + path))

    def post(self, path: str, body: Any) -> Any:
        """Likewise, with `body` as JSON: `/flow_runs/filter`."""
        headers = {"Content-Type": "application/json"}
        return self._request(urllib.request.Request(self.api + path, json.dumps(body).encode(), headers))

    def _request(self, request: urllib.request.Request) -> Any:
        if secret := self.environment.get("PREFECT_API_AUTH_STRING"):
            request.add_header("Authorization", f"Basic {b64encode(secret.encode()).decode()}")
        return answer_of(request)


def answer_of(request: urllib.request.Request) -> Any:
    """What a server answers, read as JSON.

    One whose SQLite database is locked says 503 and is asked again, as by Prefect's own client; other refusals raise
    `urllib.error.HTTPError`.
    """
    answers: list[Any] = []

    def answered() -> bool:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                answers.append(json.loads(response.read() or "null"))
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        return bool(answers)

    wait_until(answered, f"for {request.full_url}, which answers 503", every=0.5)
    return answers[0]


@contextlib.contextmanager
def prefect_server(
    directory: Path,
    *,
    database: str | None = None,
    auth: str | None = None,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[PrefectServer]:
    """A real Prefect server, gone afterwards.

    To restart one, leave the block and enter another of the same directory and port.

    Args:
        directory: Takes its PREFECT_HOME, with an SQLite database if none is given, and its log.
        database: URL of another database, as `PostgresServer.make_database` gives it.
        auth: `USER:PASSWORD` that the server wants of its clients.
        port: A free one when not given.
        settings: Further PREFECT_ variables of the server.
    """
    home = make_home(directory / "prefect")
    port = port or free_port()
    common = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1",
    }
    pages = {
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",  # else they ask at 4200
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    mine = {**common, **PATIENT, **pages, **(settings or {})}
    theirs = {**common, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    if database is not None:
        mine["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    if auth is not None:
        mine["PREFECT_SERVER_API_AUTH_STRING"] = theirs["PREFECT_API_AUTH_STRING"] = auth
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = directory / "server.log"
    with started(command, mine, log) as process:
        server = PrefectServer(theirs["PREFECT_API_URL"], theirs, log, process)
        wait_for(lambda: answers(server), process, log)
        yield server


@contextlib.contextmanager
def worker(
    server: PrefectServer,
    pool: str,
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[psutil.Popen]:
    """A real worker of a process pool, which it makes if need be; gone afterwards, with all that it started.

    Args:
        server: Whose work it does.
        pool: Name of the work pool.
        directory: Takes its log.
        environment: Added to the server's `environment`.
        options: Further arguments of `prefect worker start`.
    """
    name = f"worker-{uuid.uuid4().hex}"
    variables = {**server.environment, "PREFECT_WORKER_QUERY_SECONDS": "1", **(environment or {})}
    command = [*PREFECT, "worker", "start", "--pool", pool, "--type", "process", "--name", name, *options]
    log = directory / "worker.log"

    def online() -> bool:
        try:
            workers = server.post(f"/work_pools/{pool}/workers/filter", {})
        except urllib.error.HTTPError:  # the pool is not there yet
            return False
        return any(one["name"] == name and one["status"] == "ONLINE" for one in workers)

    with started(command, variables, log) as process:
        wait_for(online, process, log)
        yield process


@contextlib.contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, grace: float = 20
) -> Iterator[psutil.Popen]:
    """A process whose lines go to `log`; ended with all its descendants, which have `grace` seconds for it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = psutil.Popen(
            command, cwd=ROOT, env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        end_tree(process, grace)


def end_tree(process: psutil.Popen, grace: float) -> None:
    """SIGTERM to a process and its descendants, SIGKILL to what is left after `grace` seconds."""
    tree = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        tree += process.children(recursive=True)
    for one in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    _, alive = psutil.wait_procs(tree, timeout=grace)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def wait_for(condition: Callable[[], bool], process: psutil.Popen, log: Path) -> None:
    """Poll; an error with the log's end when the process is gone before it holds."""

    def what() -> str:
        return f"for {' '.join(process.args)}\n{log.read_text(errors='replace')[-4000:]}"

    wait_until(lambda: process.poll() is not None or condition(), what, every=0.2)
    if process.poll() is not None:
        raise RuntimeError(f"gone: {what()}")


def answers(server: PrefectServer) -> bool:
    try:
        return server.get("/health") is True
    except OSError:
        return False
