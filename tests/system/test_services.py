"""The servers that other tests stand on: Prefect on PostgreSQL with basic auth, a worker, and its pages in Chromium."""

import subprocess
import urllib.error

import psutil
import pytest
from browser import browser_page
from postgres_server import PostgresServer, postgres  # noqa: F401
from prefect_servers import PREFECT, prefect_server, worker

AUTH = "team:a-password-of-this-test"


@pytest.fixture(scope="module")
def server(postgres: PostgresServer, tmp_path_factory):  # noqa: F811
    database = postgres.make_database("services")
    with prefect_server(tmp_path_factory.mktemp("services"), database=database, auth=AUTH) as server:
        yield server


def test_prefect_keeps_its_state_in_postgres(server, postgres: PostgresServer):  # noqa: F811
    made = server.post("/work_pools/", {"name": "seen-in-postgres", "type": "process"})
    rows = postgres.psql("services", "SELECT id FROM work_pool WHERE name = 'seen-in-postgres'")
    assert rows == made["id"]


def test_only_with_the_password(server):
    command = [*PREFECT, "work-pool", "ls"]

    def listing(environment):
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    server.post("/work_pools/", {"name": "only-for-the-team", "type": "process"})
    assert "only-for-the-team" in listing({**server.environment, "COLUMNS": "200"}).stdout
    refused = listing({**server.environment, "PREFECT_API_AUTH_STRING": "team:wrong"})
    assert refused.returncode != 0
    assert "401" in refused.stdout + refused.stderr


def test_a_worker_comes_online_and_goes(server, tmp_path):
    with worker(server, "services-pool", tmp_path) as process:
        (one,) = server.post("/work_pools/services-pool/workers/filter", {})
        assert one["status"] == "ONLINE"
        tree = [process.pid, *(child.pid for child in process.children(recursive=True))]
    assert not [pid for pid in tree if psutil.pid_exists(pid)]


def test_a_server_restarted_in_its_place_knows_what_it_knew(tmp_path):
    with prefect_server(tmp_path) as first:
        first.post("/work_pools/", {"name": "kept", "type": "process"})
        port = int(first.api.removesuffix("/api").rpartition(":")[2])
    with pytest.raises(urllib.error.URLError):
        first.get("/health")
    with prefect_server(tmp_path, port=port) as second:
        assert second.get("/work_pools/kept")["name"] == "kept"


def test_chromium_shows_the_server_and_nothing_else(server):
    with browser_page() as page:
        refused = []
        page.on("requestfailed", lambda request: refused.append(request.url))
        page.goto(server.ui)
        page.get_by_text("Prefect").first.wait_for(state="attached")
        page.evaluate("fetch('http://192.0.2.1/').catch(() => 0)")
        assert "http://192.0.2.1/" in refused
        assert all(not url.startswith(server.ui) for url in refused)
