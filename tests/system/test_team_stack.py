"""The compose file's services without containers: their own commands and settings, on loopback, to a finished run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import s3fs
import yaml
from browser import browser_page
from polling import PATIENCE, wait_until
from ports import free_port, free_ports
from postgres_server import PostgresServer, postgres  # noqa: F401
from prefect_servers import PATIENT, ROOT, PrefectServer, answers, started, wait_for
from prefect_site import write_recipe

AUTH = "team:a-password-of-this-test"
SECRETS = {
    "PREFECT_API_AUTH_STRING": AUTH,
    "POSTGRES_PASSWORD": "database-password-of-this-test",
    "STORE_ACCESS_KEY": "an-access-key",
    "STORE_SECRET_KEY": "a-secret-key-of-this-test",
}


class Stack:
    """The compose file with secrets filled in, and addresses of containers made those of this machine."""

    def __init__(self, database_port: int, directory: Path) -> None:
        self.directory, self.api_port, self.health_port = directory, free_port(), free_port()
        self.store_port, master, volume, filer = free_ports(4)
        text = (ROOT / "deployments" / "compose.yaml").read_text()
        text = re.sub(r"\$\{(\w+):\?[^}]+\}", lambda found: SECRETS[found[1]], text)
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")
        for there, here in (
            ("postgres:5432", f"127.0.0.1:{database_port}"),
            ("server:4200", f"127.0.0.1:{self.api_port}"),
            ("store:8333", f"127.0.0.1:{self.store_port}"),
            ("127.0.0.1:4200", f"127.0.0.1:{self.api_port}"),
            ('"4200"', f'"{self.api_port}"'),
            ("127.0.0.1:8080", f"127.0.0.1:{self.health_port}"),
            ("s3.port=8333", f"s3.port={self.store_port}"),
            ("-ip=store", "-ip=127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("dir=/data", f"dir={directory}"),
            ("/cache", str(directory / "cache")),
        ):
            assert there in text, there
            text = text.replace(there, here)
        self.services = yaml.safe_load(text)["services"]
        self.services["worker"]["environment"]["PREFECT_WORKER_WEBSERVER_PORT"] = str(self.health_port)
        self.services["worker"]["environment"]["PREFECT_WORKER_QUERY_SECONDS"] = "1"
        # Without these SeaweedFS would take fixed ports, and large files at once.
        store = self.services["store"]["command"]
        store += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
        store += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64"]

    def environment(self, service: str) -> dict[str, str]:
        """What a service's container would have, on top of what any process needs here."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "PREFECT_HOME": str(self.directory / service),
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "127.0.0.1",
            **PATIENT,
            **{name: str(value) for name, value in self.services[service]["environment"].items()},
        }

    def start(self, service: str):
        """Its command as a process, for a `with` block."""
        command = self.services[service]["command"]
        if service == "store":  # whose image's entry point is weed, which takes half a minute to say good-bye
            return started(["weed", *command], self.environment(service), self.log(service), grace=1)
        return started(command, self.environment(service), self.log(service))

    def run(self, service: str, command: list[str]) -> str:
        """A command that ends, in a service's environment."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment(service),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def healthy(self, service: str) -> bool:
        """Whether its health check passes, where that is a Python program."""
        test = self.services[service]["healthcheck"]["test"]
        return subprocess.run(test[1:], env=self.environment(service), capture_output=True, check=False).returncode == 0

    def log(self, service: str) -> Path:
        return self.directory / f"{service}.log"


@pytest.fixture(scope="module")
def stack(postgres: PostgresServer, tmp_path_factory):  # noqa: F811
    # As the image of PostgreSQL does with POSTGRES_USER, _DB and _PASSWORD.
    postgres.psql("postgres", f"CREATE ROLE prefect LOGIN SUPERUSER PASSWORD '{SECRETS['POSTGRES_PASSWORD']}'")
    postgres.psql("postgres", "CREATE DATABASE prefect OWNER prefect")
    stack = Stack(postgres.port, tmp_path_factory.mktemp("team"))
    with stack.start("store"), stack.start("server") as server:
        wait_for(lambda: stack.healthy("server"), server, stack.log("server"))
        for _ in range(2):  # it may run at each start of the stack
            stack.run("set-up", stack.services["set-up"]["command"])
        with stack.start("worker") as worker:
            wait_for(lambda: stack.healthy("worker"), worker, stack.log("worker"))
            yield stack


@pytest.fixture(scope="module")
def server(stack) -> PrefectServer:
    client = stack.environment("worker")
    return PrefectServer(client["PREFECT_API_URL"], client, stack.log("server"), None)


def test_a_run_of_the_worker_is_in_the_store(stack, server, postgres, tmp_path):  # noqa: F811
    (deployment,) = server.post("/deployments/filter", {"deployments": {"name": {"any_": ["prepare-data"]}}})
    parameters = {"parameters": {"recipe": str(write_recipe(tmp_path))}}
    run = server.post(f"/deployments/{deployment['id']}/create_flow_run", parameters)

    def ended():
        state = server.get(f"/flow_runs/{run['id']}")
        return state if state["state_type"] in ("COMPLETED", "FAILED", "CRASHED") else None

    run = wait_until(ended, "for the run to end", every=1)
    assert run["state_type"] == "COMPLETED", run["state"]
    assert postgres.psql("prefect", f"SELECT state_type FROM flow_run WHERE id = '{run['id']}'") == "COMPLETED"
    worker = stack.environment("worker")
    store = s3fs.S3FileSystem(
        key=SECRETS["STORE_ACCESS_KEY"], secret=SECRETS["STORE_SECRET_KEY"], endpoint_url=worker["AWS_ENDPOINT_URL"]
    )
    place = worker["LONGRECIPE_STORE"].removeprefix("s3://")
    assert {path.split("/")[2] for path in store.glob(f"{place}/*/*/manifest.json")} >= {"tokens", "index"}
    anybody = s3fs.S3FileSystem(anon=True, endpoint_url=worker["AWS_ENDPOINT_URL"])
    with pytest.raises(PermissionError):
        anybody.ls(place)
    # A password that a log holds is read by all who read logs.
    logs = "".join(stack.log(service).read_text(errors="replace") for service in ("server", "store", "worker"))
    records = json.dumps(server.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}}))
    for secret in (AUTH.partition(":")[2], SECRETS["POSTGRES_PASSWORD"], SECRETS["STORE_SECRET_KEY"]):
        assert secret not in logs + records


def test_pages_ask_for_the_password(server):
    with browser_page() as page:
        page.goto(server.ui)
        page.get_by_role("textbox").first.fill(AUTH)
        page.keyboard.press("Enter")
        # The page keeps the password when the server has answered, and only then leaves.
        page.wait_for_url(lambda url: "/login" not in url)
        page.goto(f"{server.ui}/work-pools")
        page.get_by_text("longrecipe", exact=True).first.wait_for()


def test_without_the_password_nothing_is_told(server):
    nobody = PrefectServer(server.api, {}, server.log, server.process)
    assert answers(nobody)
    with pytest.raises(OSError, match="401"):
        nobody.post("/flow_runs/filter", {})
