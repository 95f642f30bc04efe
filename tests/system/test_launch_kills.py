"""Real training jobs of two ranks whose processes are killed, stopped and told to end: who goes, and what is told."""

import os
import signal
import subprocess
import sys

import pytest
from launched_jobs import make_material, processes_of, ranks_of, write_job
from polling import wait_until

from longrecipe_core.training.checkpoint import complete_steps
from longrecipe_core.training.metrics_file import read_metrics

LONG = 20000  # steps that no test waits for


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


class Launched:
    """A flow of its own that launches a job, and what it printed."""

    def __init__(self, job):
        self.directory = job.parent
        self.output = self.directory / "flow.txt"
        code = (
            "import pathlib\n"
            "from longrecipe_core.launching import launch_training\n"
            "from longrecipe_core.errors import LaunchError\n"
            "try:\n"
            f"    launch_training(pathlib.Path({str(job)!r}), cuda=False, log=lambda line: print(line, flush=True))\n"
            "except LaunchError as error:\n"
            "    print('RAISED', type(error).__name__, error, flush=True)\n"
        )
        with self.output.open("w") as output:
            self.flow = subprocess.Popen(
                [sys.executable, "-c", code], stdout=output, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )

    def step(self, number):
        """Wait until this many steps were taken."""
        metrics = self.directory / "logs" / "metrics.jsonl"
        wait_until(lambda: len(read_metrics(metrics)) >= number or self.flow.poll() is not None, f"for step {number}")
        assert self.flow.poll() is None, self.output.read_text()

    def process(self, who):
        """`flow`, `supervisor`, `launcher`, or a rank's number."""
        if who == "flow":
            return self.flow.pid
        if isinstance(who, int):
            return ranks_of(self.directory)[who].pid
        launcher = ranks_of(self.directory)[0].parent()
        return launcher.pid if who == "launcher" else launcher.parent().pid

    def error(self):
        """Wait for the flow's end and for that of all processes; the line that tells what was raised."""
        wait_until(lambda: self.flow.poll() is not None, f"for the flow to end: {self.output.read_text()[-2000:]}")
        wait_until(lambda: not processes_of(self.directory), f"processes remain: {processes_of(self.directory)}")
        lines = self.output.read_text().splitlines()
        return next((line for line in lines if line.startswith("RAISED ")), None)


@pytest.fixture
def launched(material, tmp_path):
    started = []

    def start(**options):
        job = write_job(material, tmp_path / "run", steps=LONG, **options)
        started.append(Launched(job))
        return started[-1]

    yield start
    for each in started:
        each.flow.kill()
        each.flow.wait()
        wait_until(lambda: not processes_of(tmp_path), "for the job to go")


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ("flow", None),
        ("supervisor", "its supervisor was killed by SIGKILL"),
        ("launcher", "its launcher was killed by SIGKILL"),
        (0, "rank 0 was killed by SIGKILL"),
        (1, "rank 1 was killed by SIGKILL"),
    ],
)
def test_nothing_remains_after_kill_9(launched, who, told):
    job = launched()
    job.step(3)
    assert len(ranks_of(job.directory)) == 2
    os.kill(job.process(who), signal.SIGKILL)
    raised = job.error()
    if told is None:
        assert raised is None
        return
    assert raised.startswith("RAISED JobKilledError ")
    assert told in raised
    lines = job.output.read_text().splitlines()
    assert any(line.startswith("[rank0]: step ") and f"/{LONG} loss" in line for line in lines)
    assert any(f"step 0 of {LONG}, 2 ranks" in line for line in lines)


def test_a_hung_rank_is_told_by_the_collective_timeout(launched):
    job = launched(collective_timeout=60)  # also bounds how far apart ranks import, on a loaded machine
    job.step(3)
    os.kill(job.process(1), signal.SIGSTOP)
    raised = job.error()
    assert raised.startswith("RAISED LaunchError ")
    assert "a collective timed out after launch.collective_timeout 60 s: rank 1 did not arrive" in raised


def test_an_error_of_a_rank_is_told(launched):
    raised = launched(learning_rate=1e30, clip=1e30).error()
    assert raised.startswith("RAISED LaunchError ")
    assert "TrainingError: step " in raised


@pytest.mark.parametrize("who", ["supervisor", "launcher", 1])
def test_sigterm_saves_and_is_told_as_preemption(launched, who):
    job = launched(checkpoint_every=LONG)
    job.step(3)
    os.kill(job.process(who), signal.SIGTERM)
    raised = job.error()
    assert raised.startswith("RAISED JobPreemptedError ")
    steps = complete_steps(job.directory / "checkpoints")
    assert len(steps) == 1
    assert f"the state after step {steps[0]} is saved" in raised
    assert [row["step"] for row in read_metrics(job.directory / "logs" / "metrics.jsonl")] == list(
        range(1, steps[0] + 1)
    )
