"""A server, a worker and the project's deployments, as `make ui` starts them, and a recipe of seconds to run there."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from longrecipe_core.launching.machines import free_port

ROOT = Path(__file__).parents[2]
FEW = {"steps": 3, "global_batch": 4, "warmup_steps": 0}
READY_SECONDS = 300.0


@dataclass(frozen=True)
class Site:
    """Where it is; `environment` is that of its clients."""

    api: httpx.Client
    environment: dict[str, str]
    recipe: Path
    store: Path

    def run(self, **settings: str) -> dict[str, Any]:
        """`longrecipe run`, to its end; its last line."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "run", str(self.recipe), "--store", str(self.store)],
            cwd=ROOT,
            env={**self.environment, **settings},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"longrecipe run ended with {done.returncode}\n{done.stderr[-3000:]}")
        summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return summary

    def trigger(self, store: Path, *overrides: str) -> str:
        """A run of the deployment extend-context; its id."""
        deployment = self.get("/deployments/name/extend-context/extend-context")["id"]
        parameters = {"recipe": str(self.recipe), "store": str(store), "overrides": list(overrides)}
        run: str = self.post(f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]
        return run

    def get(self, path: str) -> Any:
        """What the API answers."""
        return self.api.get(path).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        """What the API answers."""
        return self.api.post(path, json=body).raise_for_status().json()


@contextmanager
def site(directory: Path) -> Iterator[Site]:
    """All of it, gone afterwards."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(directory / "prefect"),
        "LONGRECIPE_CACHE": str(directory / "cache"),
        "LONGRECIPE_STORE": str(directory / "store"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    log = directory / "ui.log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "deployments.ui", "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=url, timeout=60) as api:
            here = Site(api, {**environment, "PREFECT_API_URL": url}, small_recipe(directory), directory / "store")
            wait_until(lambda: process.poll() is not None or _ready(api), "for the server and its worker")
            if process.poll() is not None:
                raise SystemExit(f"python -m deployments.ui ended with {process.returncode}\n{log.read_text()[-3000:]}")
            yield here
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def small_recipe(directory: Path) -> Path:
    """The demo's recipe with few steps of a smaller model."""
    tree = yaml.safe_load((ROOT / "recipes" / "tiny-cpu.yaml").read_text())
    tree["base"] |= {"hidden_size": 32, "intermediate_size": 48, "layers": 2}
    for training in (tree["base"]["training"], tree["extend"], tree["anneal"]):
        training |= FEW
    tree["corpus"]["sources"][0]["limit"] = 60
    tree["corpus"]["validation_share"] = 0.3
    tree["replay"]["sources"][0]["limit"] = 300
    tree["index"]["samples"] = 40
    tree["evaluation"]["documents"] = 2
    tree["launch"] = {"threads": 1, "checkpoint_every": 20}
    path = directory / "small.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def wait_until(condition: Callable[[], object], what: str, *, every: float = 0.5) -> None:
    """Poll; SystemExit after five minutes."""
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {READY_SECONDS:.0f} s {what}")
        time.sleep(every)


def processes_with(text: str) -> list[psutil.Process]:
    """Living processes with `text` in their command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if text in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _ready(api: httpx.Client) -> bool:
    with suppress(httpx.HTTPError):
        pools = api.post("/work_pools/filter", json={}).json()
        for pool in pools:
            workers = api.post(f"/work_pools/{pool['name']}/workers/filter", json={}).json()
            if any(worker["status"] == "ONLINE" for worker in workers):
                return api.get("/deployments/name/extend-context/extend-context").is_success
    return False
