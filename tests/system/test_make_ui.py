"""`make ui`: one command, twice, beside itself, and its end."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path

import psutil
import pytest
import yaml
from polling import PATIENCE
from ports import free_port
from prefect_servers import ROOT, answer_of
from prefect_site import eventually, stored_steps, write_recipe


class Ui:
    """A running `make ui`, without make."""

    def __init__(self, directory: Path, environment: dict[str, str], port: int) -> None:
        self.api, self.log = f"http://127.0.0.1:{port}/api", directory / f"ui-{uuid.uuid4().hex}.log"
        command = [sys.executable, "-m", "deployments.ui", "--port", str(port)]
        with self.log.open("wb") as output:
            self.process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        eventually(lambda: "Prefect is at" in self.said() or self.process.poll() is not None, self.said)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def call(self, path: str, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api + path, data, {"Content-Type": "application/json"})
        return answer_of(request)

    def end(self, number: int) -> None:
        """Send a signal; nothing of the tree may be left."""
        tree = self.process.children(recursive=True)
        assert tree
        self.process.send_signal(number)
        assert self.process.wait(timeout=PATIENCE) == 0, self.said()
        eventually(lambda: not any(alive(one) for one in tree), lambda: str([one for one in tree if alive(one)]))


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def things(ui: Ui) -> dict[str, list]:
    """What set-up and deploying make, by name."""
    places = ("work_pools", "deployments", "automations", "block_documents", "v2/concurrency_limits")
    return {place: sorted(one["name"] for one in ui.call(f"/{place}/filter", {})) for place in places}


@pytest.fixture
def uis(tmp_path, environment):
    """Start one more on the same port and database."""
    port, running = free_port(), []

    def start() -> Ui:
        running.append(Ui(tmp_path, environment, port))
        return running[-1]

    yield start
    for one in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [*one.process.children(recursive=True), one.process]:
                each.kill()


def test_make_ui_starts_goes_on_and_ends(uis, tmp_path):
    first = uis()
    made = things(first)
    assert made["work_pools"] == ["longrecipe"]
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert made["deployments"] == sorted(one["name"] for one in declared)
    assert [name for name in made["v2/concurrency_limits"] if not name.startswith("deployment:")] == ["gpu"]
    assert made["automations"] == ["longrecipe: crashed"]
    retrain = first.call("/deployments/name/retrain/retrain")
    schedule = retrain["schedules"][0]["id"]
    patch(first, f"/deployments/{retrain['id']}/schedules/{schedule}", {"active": True})
    eventually(lambda: planned(first, retrain["id"]), lambda: server_log(tmp_path))

    # Beside itself: the server is used, and left.
    second = uis()
    assert "server: there already" in second.said()
    second.end(signal.SIGTERM)
    assert first.call("/health") is True
    assert things(first) == made

    # Ctrl-C while a job trains: its state is saved, and nothing is left of the tree.
    recipe, store = write_recipe(tmp_path), tmp_path / "store"
    deployment = first.call("/deployments/name/extend-context/extend-context")
    parameters = {"recipe": str(recipe), "store": str(store), "overrides": ["extend.steps=100000"]}
    run = first.call(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]
    eventually(lambda: stored_steps(store), first.said)
    first.end(signal.SIGINT)
    with pytest.raises(OSError):  # noqa: PT011 - refused
        first.call("/health")

    # Once more, on the same database.
    third = uis()
    assert things(third) == made
    assert third.call("/deployments/name/retrain/retrain")["schedules"][0]["active"] is True
    assert third.call(f"/flow_runs/{run}")["state"]["type"] == "CRASHED"
    third.end(signal.SIGINT)


def planned(ui: Ui, deployment: str) -> list:
    """Runs that the server's scheduler has made."""
    filters = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    return [run for run in ui.call("/flow_runs/filter", filters) if run["auto_scheduled"]]


def server_log(tmp_path: Path) -> str:
    return f"for a planned run\n{(tmp_path / 'prefect' / 'server.log').read_text(errors='replace')[-4000:]}"


def patch(ui: Ui, path: str, body) -> None:
    request = urllib.request.Request(
        ui.api + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="PATCH"
    )
    answer_of(request)


def test_a_port_that_something_else_has_is_told(environment):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "deployments.ui", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr


def test_make_has_it(environment):
    done = subprocess.run(["make", "-n", "ui"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "exec .venv/bin/python -m deployments.ui"
