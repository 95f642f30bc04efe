"""The shipped automations, by the events that they fire on; messages arrive at a real receiver on loopback."""

import json
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect_servers import ROOT, prefect_server
from prefect_site import eventually

from deployments.automations import crash_detection


@pytest.fixture(scope="module")
def receiver():
    """A web hook: its URL, and what it was sent."""
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook/secret-token", sent
        server.shutdown()


@pytest.fixture(scope="module")
def server(receiver, tmp_path_factory):
    """A server that was set up with a place for messages."""
    directory = tmp_path_factory.mktemp("automations")
    with prefect_server(directory) as server:
        done = set_up(server, directory, LONGRECIPE_NOTIFY_URL=receiver[0])
        assert done.count(": created") == 7, done  # pool, limit, block, crashed, three messages
        yield server


def set_up(server, directory, **variables):
    environment = {**server.environment, "LONGRECIPE_STORE": str(directory / "store"), **variables}
    command = [sys.executable, "-m", "deployments.set_up"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "secret-token" not in done.stdout
    return done.stdout


def start_run(server, *tags):
    """A run of an empty flow that has begun."""
    flow = server.post("/flows/", {"name": "watched"})
    return server.post("/flow_runs/", {"flow_id": flow["id"], "tags": tags, "state": {"type": "RUNNING"}})


def set_state(server, run, state):
    body = {"state": {"type": state, "message": f"a message of this test: {state}"}, "force": True}
    server.post(f"/flow_runs/{run['id']}/set_state", body)


def emit(server, event, resource, payload=None, related=()):
    server.post(
        "/events",
        [
            {
                "event": event,
                "occurred": datetime.now(UTC).isoformat(),
                "resource": {"prefect.resource.id": resource},
                "related": list(related),
                "payload": payload or {},
                "id": str(uuid.uuid4()),
            }
        ],
    )


@pytest.mark.parametrize("state", ["FAILED", "CRASHED"])
def test_a_run_that_ends_badly_is_told(server, receiver, state):
    ours, theirs = start_run(server, "longrecipe"), start_run(server, "others")
    set_state(server, theirs, state)
    set_state(server, ours, state)
    subject = f"longrecipe: {state.capitalize()}"
    eventually(lambda: any(one["subject"] == subject for one in receiver[1]), f"for {subject}: {receiver[1]}")
    (message,) = [one for one in receiver[1] if one["subject"] == subject]
    assert ours["name"] in message["body"]
    assert f"a message of this test: {state}" in message["body"]


def test_a_promoted_model_is_told(server, receiver):
    emit(server, "longrecipe.model.promoted", "longrecipe.model.llama3-8b-80k", {"model": "s3://store/checkpoint/1"})
    eventually(lambda: any("Promoted" in one["subject"] for one in receiver[1]), "for the message")
    (message,) = [one for one in receiver[1] if "Promoted" in one["subject"]]
    assert "longrecipe.model.llama3-8b-80k" in message["body"]
    assert "s3://store/checkpoint/1" in message["body"]


def test_a_run_without_a_sign_of_life_is_crashed(server):
    # The shipped automation, told of one run only and with less patience than 5 minutes.
    lost, alive = start_run(server, "longrecipe"), start_run(server, "longrecipe")
    shipped = crash_detection()
    trigger = shipped.trigger.model_copy(update={"within": timedelta(seconds=10)})
    hasty = shipped.model_copy(update={"name": "hasty", "trigger": trigger})
    server.post("/automations/", hasty.model_dump(mode="json"))
    tag = {"prefect.resource.id": "prefect.tag.longrecipe", "prefect.resource.role": "tag"}
    for run in (lost, alive):
        emit(server, "prefect.flow-run.heartbeat", f"prefect.flow-run.{run['id']}", related=[tag])
    set_state(server, alive, "COMPLETED")

    def state(run):
        return server.get(f"/flow_runs/{run['id']}")["state"]

    eventually(lambda: state(lost)["type"] == "CRASHED", "for the run to be crashed")
    assert "No sign of life" in state(lost)["message"]
    assert state(alive)["type"] == "COMPLETED"


def test_set_up_again_leaves_what_is_there(server, tmp_path_factory):
    lines = set_up(server, tmp_path_factory.getbasetemp() / "automations0")
    assert lines.count("there already") == 7, lines
    automations = server.post("/automations/filter", {})
    names = [one["name"] for one in automations if one["name"].startswith("longrecipe")]
    assert len(names) == len(set(names)) == 4
    assert all(one["enabled"] for one in automations)


def test_results_go_where_a_remote_store_is_and_no_credentials_with_them(server, tmp_path):
    slug = "remote-file-system"
    lines = set_up(
        server,
        tmp_path,
        LONGRECIPE_STORE="s3://bucket/store",
        AWS_ACCESS_KEY_ID="who",
        AWS_SECRET_ACCESS_KEY="hush-hush",
    )
    assert f"block {slug}/longrecipe-results: created, s3://bucket/store/results" in lines
    block = server.get(f"/block_types/slug/{slug}/block_documents/name/longrecipe-results?include_secrets=true")
    assert block["data"]["basepath"] == "s3://bucket/store/results"
    assert "hush-hush" not in json.dumps(block)
    environment = server.get("/work_pools/longrecipe")["base_job_template"]["variables"]["properties"]["env"]["default"]
    assert environment["PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK"] == f"{slug}/longrecipe-results"
