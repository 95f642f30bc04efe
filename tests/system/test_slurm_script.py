"""The Slurm script on two nodes that are processes here: preempted in training, submitted again, and done."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import stand_in_slurm
from polling import PATIENCE, wait_until
from prefect_servers import ROOT, prefect_server
from prefect_site import write_recipe

from longrecipe_core.launching.machines import Leader, Machine

SCRIPT = ROOT / "deployments" / "slurm" / "machines.sbatch"
STEPS = 400
LAUNCH = {"machines": 2, "processes": 2, "workers": 1, "preemption_grace": PATIENCE, "checkpoint_every": 100_000}
# Two stages that train, one after the other, and no more than that.
COMMAND = """
from flows.prepare_data import prepare_data
from flows.train_stage import train_stage
import json, sys
given = json.loads(sys.argv[1])
train_stage(stage="base", **given)
prepare_data(**given)
train_stage(stage="extend", **given)
"""


@pytest.fixture
def submit(environment, tmp_path):
    """Starts the script as `sbatch` would; gives the process and its log."""
    overrides = [f"base.training.steps={STEPS}", *(f"launch.{key}={value}" for key, value in LAUNCH.items())]
    given = json.dumps({"recipe": str(write_recipe(tmp_path)), "overrides": overrides})
    slurm = stand_in_slurm.install(tmp_path / "slurm", nodes=2)
    slurm["PATH"] = f"{tmp_path / 'slurm'}:{environment['PATH']}"
    started = []

    def start(name):
        log = tmp_path / f"{name}.log"
        with log.open("w") as output:
            command = ["bash", SCRIPT, sys.executable, "-c", COMMAND, given]
            started.append(
                psutil.Popen(command, cwd=ROOT, env=environment | slurm, stdout=output, stderr=subprocess.STDOUT)
            )
        return started[-1], log

    with prefect_server(tmp_path / "server") as server:  # one of its own the flow would have in its step
        slurm["PREFECT_API_URL"] = server.api
        yield start
    for process in started:
        for one in (process, *descendants(process)):
            if one.is_running():
                one.kill()
        process.wait()


def descendants(process: psutil.Popen) -> list[psutil.Process]:
    return process.children(recursive=True) if process.is_running() else []


def steps_taken(store: Path) -> int:
    return max((len(path.read_text().splitlines()) for path in store.glob("staging/*/logs/metrics.jsonl")), default=0)


def test_preempted_and_submitted_again(submit, environment):
    store = Path(environment["LONGRECIPE_STORE"])
    # What another run in the same store does is not followed. It has no job.json, without which a follower fails.
    with Leader(store / "staging" / "another" / "job.launch", Machine(0, 2, "127.0.0.1", 1), 60, None):
        preempted_and_submitted_again(submit, store)


def preempted_and_submitted_again(submit, store):
    batch, log = submit("first")
    wait_until(lambda: steps_taken(store) > 10 or batch.poll() is not None, "for a step of training")
    assert batch.poll() is None, log.read_text()
    processes = descendants(batch)
    for process in processes:
        if "srun" not in " ".join(process.cmdline()[1:2]):  # a scheduler signals the tasks' processes
            process.send_signal(signal.SIGTERM)
    assert batch.wait(PATIENCE) != 0
    psutil.wait_procs(processes, timeout=PATIENCE)
    assert not [process for process in processes if process.is_running()]
    (saved,) = {path.name for path in store.glob("staging/*/checkpoints/step-*")}
    reached = int(saved.removeprefix("step-"))
    assert 10 <= reached < STEPS  # nothing but the signal saves: checkpoint_every is above all steps

    batch, log = submit("again")
    assert batch.wait(PATIENCE) == 0, log.read_text()
    assert f"base: resumes after step {reached}" in log.read_text()
    assert log.read_text().count(" ranks on cpu") == 2  # of base and extend, both followed
    base, extend = sorted(store.glob("checkpoint/*/*/about/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    assert [json.loads(row)["step"] for row in base.read_text().splitlines()] == list(range(1, STEPS + 1))
    assert len(extend.read_text().splitlines()) == 3
