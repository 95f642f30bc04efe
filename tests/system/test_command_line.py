"""The command line as its users meet it: killed in the middle, with a server, with a store on S3."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from s3_server import S3Server, s3_server  # noqa: F401

from longrecipe_core.launching.machines import free_port

ROOT = Path(__file__).resolve().parents[2]
LONGRECIPE = [sys.executable, "-m", "flows.cli"]
STAGES = ["base", "tokenize", "index", "extend", "replay", "anneal", "merge", "evaluate", "report"]


@pytest.fixture
def recipe(tmp_path) -> Path:
    """The demo's recipe with few steps."""
    tree = yaml.safe_load((ROOT / "recipes" / "tiny-cpu.yaml").read_text())
    tree["base"] |= {"hidden_size": 32, "intermediate_size": 48, "layers": 2}
    for training in (tree["base"]["training"], tree["extend"], tree["anneal"]):
        training |= {"steps": 3, "global_batch": 4, "warmup_steps": 0}
    tree["corpus"]["sources"][0]["limit"] = 60
    tree["corpus"]["validation_share"] = 0.3
    tree["replay"]["sources"][0]["limit"] = 300
    tree["index"]["samples"] = 40
    tree["evaluation"]["documents"] = 2
    tree["launch"] = {"threads": 1, "checkpoint_every": 20}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def run(recipe, environment, *options):
    done = subprocess.run(
        [*LONGRECIPE, "run", str(recipe), *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]), done


def statuses(result):
    return {stage["stage"]: stage["status"] for stage in result["stages"]}


def wait_until(condition, what):
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"waited 120 s {what}")


def metrics_steps(store: Path) -> list[int]:
    found = sorted(store.glob("staging/*/logs/metrics.jsonl"))
    return [len(path.read_text().splitlines()) for path in found]


def test_killed_in_stage_1_resumes_there(recipe, environment, tmp_path):
    """kill -9 of `longrecipe run` in annealing: stage 0 is a hit afterwards and annealing goes on at its checkpoint."""
    store = Path(environment["LONGRECIPE_STORE"])
    long_anneal = ["--set", "anneal.steps=150"]
    flow = subprocess.Popen(
        [*LONGRECIPE, "run", str(recipe), *long_anneal],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def stored_by_annealing():
        """Every training saves its last step, the third; only annealing has more."""
        stored = store.glob("state/*/step-*/manifest.json")
        return [manifest for manifest in stored if manifest.parent.name != "step-3"]

    wait_until(lambda: stored_by_annealing() or flow.poll() is not None, "for a stored state")
    assert flow.poll() is None, "the run ended before it could be killed"
    os.kill(flow.pid, signal.SIGKILL)
    flow.wait()

    def job_processes():
        return [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if str(store) in " ".join(process.info["cmdline"] or [])
        ]

    wait_until(lambda: not job_processes(), "for the job to go")
    assert max(metrics_steps(store)) < 150
    result, done = run(recipe, environment, *long_anneal)
    assert [stage for stage, status in statuses(result).items() if status == "hit"] == STAGES[:5]
    assert "anneal: step 0 of 150" not in done.stderr
    uri = next(stage["uri"] for stage in result["stages"] if stage["stage"] == "anneal")
    rows = (Path(uri) / "about" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 151))
    assert not list(store.glob("staging/*"))


@contextmanager
def prefect_server(environment, tmp_path):
    """A real Prefect server on a free port, gone afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/api/health"), "for the server")
            yield f"http://127.0.0.1:{port}/api"
        finally:
            children = psutil.Process(server.pid).children(recursive=True)
            for process in [psutil.Process(server.pid), *children]:
                process.terminate()
            _, alive = psutil.wait_procs([psutil.Process(server.pid), *children], timeout=30)
            for process in alive:
                process.kill()
            server.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_with_a_server_the_run_is_seen_there(recipe, environment, tmp_path):
    environment["PREFECT_HOME"] = str(tmp_path / "prefect")
    with prefect_server(environment, tmp_path) as api:
        result, _ = run(recipe, environment | {"PREFECT_API_URL": api})
        assert statuses(result) == dict.fromkeys(STAGES, "ran")
        again, _ = run(recipe, environment | {"PREFECT_API_URL": api})
        assert statuses(again) == dict.fromkeys(STAGES, "hit")
        body = json.dumps({"sort": "START_TIME_DESC"}).encode()
        request = urllib.request.Request(
            f"{api}/flow_runs/filter", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            runs = json.loads(response.read())
        assert [(one["name"], one["state_type"]) for one in runs] == [("tiny-cpu", "COMPLETED")] * 2
        assert len(json.dumps(runs[0]["parameters"])) < 10_000


def test_a_store_on_s3(recipe, environment, s3_server: S3Server):  # noqa: F811
    """Everything in the bucket, jobs on local files only; a second machine, with an empty cache, hits."""
    bucket, variables = s3_server.make_bucket("command-line"), s3_server.environment
    first, done = run(recipe, environment | variables, "--store", f"{bucket}/store")
    assert statuses(first) == dict.fromkeys(STAGES, "ran")
    assert all(stage["uri"].startswith(f"{bucket}/store/") for stage in first["stages"])
    assert variables["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    elsewhere = environment | variables | {"LONGRECIPE_CACHE": environment["LONGRECIPE_CACHE"] + "-elsewhere"}
    second, _ = run(recipe, elsewhere, "--store", f"{bucket}/store")
    assert statuses(second) == dict.fromkeys(STAGES, "hit")
    assert (
        subprocess.run([*LONGRECIPE, "verify", second["model"]], cwd=ROOT, env=elsewhere, check=False).returncode == 0
    )
