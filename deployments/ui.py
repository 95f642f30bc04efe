"""`make ui`: Prefect's server with our deployments and a worker, on this machine, in one command.

Ctrl-C ends what was started. A server that is there already is used and left.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import psutil

from deployments.names import CODE, WORK_POOL
from longrecipe_core.errors import LongRecipeError

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
PREFECT = [sys.executable, "-m", "prefect"]

READY_SECONDS = 180
"""A server that makes its database on a busy machine takes its time."""

END_SECONDS = 90
"""For a training job to save its state (`launch.preemption_grace`) before it is killed."""


class Stopped(BaseException):
    """SIGINT or SIGTERM."""


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal; 0 then, 1 and one line where something fails."""
    parser = argparse.ArgumentParser(prog="python -m deployments.ui", description=__doc__)
    parser.add_argument(
        "--port", type=int, default=4200, help="of the server, on the loopback interface (default: 4200)"
    )
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with server(options.port) as environment:
            call([sys.executable, "-m", "deployments.set_up"], environment)
            call([sys.executable, "-m", "deployments.deploy"], environment)
            command = [*PREFECT, "worker", "start", "--pool", WORK_POOL, "--name", f"make-ui-{os.getpid()}"]
            with started(command, environment) as worker:
                print(f"\nPrefect is at http://{HOST}:{options.port}/deployments; Ctrl-C ends it\n", flush=True)
                code = worker.wait()
                raise LongRecipeError(f"the worker ended by itself, exit code {code}")
    except Stopped:
        return 0
    except LongRecipeError as error:
        print(f"ui: {error}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def server(port: int) -> Iterator[dict[str, str]]:
    """A server that answers on the port; yields the environment of its clients. One that was there is left running."""
    address = f"http://{HOST}:{port}"
    environment = {
        **os.environ,
        "PREFECT_HOME": os.environ.get("PREFECT_HOME") or str(ROOT / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Slots whose holders a server has forgotten when it restarts would be taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "DO_NOT_TRACK": "1",
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_UI_URL": address,
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "LONGRECIPE_STORE": os.environ.get("LONGRECIPE_STORE") or str(ROOT / "artifacts"),
        CODE: os.environ.get(CODE) or str(ROOT),
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST])),
    }
    if answers(port):
        print(f"server: there already, {address}", flush=True)
        yield environment
        return
    if not free(port):
        raise LongRecipeError(f"port {port} is taken, and not by a Prefect server; choose another: --port")
    command = [*PREFECT, "server", "start", "--host", HOST, "--port", str(port)]
    log = Path(environment["PREFECT_HOME"]) / "server.log"
    with started(command, environment, log) as process:
        deadline = time.monotonic() + READY_SECONDS
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise LongRecipeError(f"the server did not come up; its log: {log}")
            time.sleep(0.5)
        print(f"server: started, {address}, its database and log in {environment['PREFECT_HOME']}", flush=True)
        yield environment


def answers(port: int) -> bool:
    """Whether a Prefect server is ready there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, ValueError), direct.open(f"http://{HOST}:{port}/api/health", timeout=5) as reply:
        return bool(reply.read() == b"true")
    return False


def free(port: int) -> bool:
    """Whether a server can have the port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def call(command: list[str], environment: Mapping[str, str]) -> None:
    """Run a command to its end. Raises LongRecipeError where it fails, after it has told why."""
    code = subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode
    if code:
        raise LongRecipeError(f"{' '.join(command[1:])}: exit code {code}")


@contextlib.contextmanager
def started(command: list[str], environment: Mapping[str, str], log: Path | None = None) -> Iterator[psutil.Popen]:
    """A process in a session of its own, so that Ctrl-C reaches only us; ended with all its descendants afterwards."""
    with contextlib.ExitStack() as stack:
        output = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(log.open("ab"))
        process = psutil.Popen(
            command, env=dict(environment), cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        end(process)


def end(process: psutil.Popen) -> None:
    """SIGTERM to the children, which are a worker's runs and say how they ended while it lives; then to the process.

    What outlives `END_SECONDS` is killed.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = process.children(recursive=True)
        for ending in (process.children(), [process]):
            for one in ending:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.terminate()
            psutil.wait_procs(ending, timeout=END_SECONDS)
        alive = [one for one in (process, *tree) if one.is_running()]
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(alive, timeout=10)


def _stop(number: int, frame: FrameType | None) -> None:
    # Once: what ends the processes is not to be interrupted itself.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
