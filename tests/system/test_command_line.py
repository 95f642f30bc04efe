"""The command line as its users meet it: killed in the middle, with a server, with a store on S3."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from polling import PATIENCE, wait_until
from ports import free_port
from prefect_servers import prefect_server
from s3_server import S3Server, s3_server  # noqa: F401

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


def run(recipe, environment, *options, cwd=ROOT):
    done = subprocess.run(
        [*LONGRECIPE, "run", str(recipe), *options],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]), done


def statuses(result):
    return {stage["stage"]: stage["status"] for stage in result["stages"]}


def metrics_steps(store: Path) -> list[int]:
    found = sorted(store.glob("staging/*/logs/metrics.jsonl"))
    return [len(path.read_text().splitlines()) for path in found]


def test_killed_in_stage_1_resumes_there(recipe, environment, tmp_path):
    """kill -9 of `longrecipe run` in annealing: stage 0 is a hit afterwards and annealing goes on at its checkpoint.

    The second run, and a third that has nothing to do, have a server, and are seen there.
    """
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
    servers = [child for child in psutil.Process(flow.pid).children() if "uvicorn" in child.cmdline()]
    os.kill(flow.pid, signal.SIGKILL)
    flow.wait()
    for server in servers:  # Prefect's own for this one run, which outlives it
        server.kill()

    def job_processes():
        return [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if str(store) in " ".join(process.info["cmdline"] or [])
        ]

    wait_until(lambda: not job_processes(), "for the job to go")
    assert max(metrics_steps(store)) < 150
    with prefect_server(tmp_path / "server") as server:
        client = environment | server.environment
        result, done = run(recipe, client, *long_anneal)
        again, _ = run(recipe, client, *long_anneal)
        runs = server.post("/flow_runs/filter", {"sort": "START_TIME_DESC"})
    assert [(one["name"], one["state_type"]) for one in runs] == [("tiny-cpu · 307→1k", "COMPLETED")] * 2
    assert len(json.dumps(runs[0]["parameters"])) < 10_000
    assert statuses(again) == dict.fromkeys(STAGES, "hit")
    assert [stage for stage, status in statuses(result).items() if status == "hit"] == STAGES[:5]
    assert "anneal: step 0 of 150" not in done.stderr
    uri = next(stage["uri"] for stage in result["stages"] if stage["stage"] == "anneal")
    rows = (Path(uri) / "about" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 151))
    assert not list(store.glob("staging/*"))


def test_interrupted_run_ends_at_once_and_tells_how_to_go_on(recipe, environment, tmp_path):
    """Ctrl-C as a terminal sends it: to the run, its job and the server that it started for itself."""
    store, said = Path(environment["LONGRECIPE_STORE"]), tmp_path / "said.txt"
    command = [*LONGRECIPE, "run", str(recipe), "--set", "base.training.steps=100000"]
    with said.open("wb") as output:
        flow = psutil.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )  # fmt: skip
    wait_until(lambda: any(metrics_steps(store)) or flow.poll() is not None, "for a step")
    tree = flow.children(recursive=True)
    assert any("uvicorn" in process.cmdline() for process in tree)
    os.killpg(flow.pid, signal.SIGINT)
    try:
        assert flow.wait(timeout=PATIENCE) == 130, said.read_text()
    finally:
        _, left = psutil.wait_procs(tree, timeout=PATIENCE)
        for process in [*left, flow]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    assert not left
    lines = said.read_text().splitlines()
    assert "Traceback (most recent call last):" not in lines
    assert "longrecipe: interrupted" in lines
    assert any(line.startswith("to resume: ") and "base.training.steps=100000" in line for line in lines)


@pytest.mark.parametrize("command", [["runs"], ["plan", "recipes/tiny-cpu.yaml"], ["run", "recipes/tiny-cpu.yaml"]])
def test_a_store_that_cannot_be_reached_is_one_line(command, environment):
    address = f"http://127.0.0.1:{free_port()}"
    access = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = subprocess.run(
        [*LONGRECIPE, *command, "--store", "s3://bucket/store"],
        cwd=ROOT, env=environment | access | {"AWS_MAX_ATTEMPTS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("longrecipe: storage can't be used: ")
    assert address in line


@contextmanager
def watched(directory: Path):
    """The command line of every process that is seen meanwhile, and the text of every job file below a directory."""
    seen, done = set(), threading.Event()

    def look():
        while not done.wait(0.5):
            seen.update(" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
            for job in directory.glob("**/job.json"):
                with suppress(FileNotFoundError):  # gone since it was listed
                    seen.add(job.read_text())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def files_below(*directories: Path) -> list[Path]:
    return [path for directory in directories for path in directory.rglob("*") if path.is_file()]


def test_a_store_on_s3(recipe, environment, s3_server: S3Server, tmp_path):  # noqa: F811
    """Everything in the bucket, jobs on local files only, the secret nowhere; a second machine hits."""
    bucket, variables = s3_server.make_bucket("command-line"), s3_server.environment
    secret, home, here = variables["AWS_SECRET_ACCESS_KEY"], tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    cache, prefect = Path(environment["LONGRECIPE_CACHE"]), Path(environment["PREFECT_HOME"])
    machine = environment | variables | {"HOME": str(home)}
    with watched(cache) as seen:
        first, done = run(recipe, machine, "--store", f"{bucket}/store", cwd=here)
    assert statuses(first) == dict.fromkeys(STAGES, "ran")
    assert all(stage["uri"].startswith(f"{bucket}/store/") for stage in first["stages"])

    # Nothing is kept here but caches, and results of Prefect nowhere.
    assert list(here.iterdir()) == []
    assert {path.relative_to(home).parts[0] for path in files_below(home)} <= {".cache", ".config"}  # of libraries
    assert {path.relative_to(cache).parts[0] for path in files_below(cache)} == {"artifacts", "digests.sqlite"}
    assert not (prefect / "storage").exists()

    # Both kinds of jobs were seen at work.
    assert {job for job in ("training", "evaluation") if any(f"longrecipe_core.{job}" in one for one in seen)} == {
        "training",
        "evaluation",
    }
    assert any('"stage": "extend"' in one for one in seen)
    assert not [one for one in seen if secret in one]
    assert secret not in done.stdout + done.stderr
    written = files_below(home, cache, prefect)
    assert (prefect / "prefect.db") in written  # with the run's log and parameters
    assert not [path for path in written if secret.encode() in path.read_bytes()]

    # A run as a worker's, of which Prefect keeps the results: beside the artifacts.
    elsewhere = machine | {"LONGRECIPE_CACHE": environment["LONGRECIPE_CACHE"] + "-elsewhere"}
    save = f"from prefect.filesystems import RemoteFileSystem; RemoteFileSystem(basepath='{bucket}/store/results')"
    subprocess.run([sys.executable, "-c", f"{save}.save('ours')"], env=elsewhere, check=True, capture_output=True)
    results = {
        "DEFAULT_STORAGE_BLOCK": "remote-file-system/ours",
        "PERSIST_BY_DEFAULT": "true",
        "DEFAULT_SERIALIZER": "json",
    }
    second, _ = run(
        recipe,
        elsewhere | {f"PREFECT_RESULTS_{name}": value for name, value in results.items()},
        "--store",
        f"{bucket}/store",
        cwd=here,
    )
    assert statuses(second) == dict.fromkeys(STAGES, "hit")
    assert not (prefect / "storage").exists()
    fs = s3_server.filesystem()
    (kept,) = fs.find("command-line/store/results")  # the flow's; a stage's is in the store as it is
    assert fs.size(kept) < 10_000
    assert len(json.loads(fs.cat_file(kept))["data"]["outcomes"]) == len(STAGES)
    stored = fs.find("command-line")
    assert any(path.endswith("manifest.json") for path in stored)
    assert not [path for path in stored if secret.encode() in fs.cat_file(path)]
    verified = subprocess.run([*LONGRECIPE, "verify", second["model"]], cwd=ROOT, env=elsewhere, check=False)
    assert verified.returncode == 0
