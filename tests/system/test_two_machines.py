"""Two launchers on loopback as two machines that share a directory."""

import os
import signal
import subprocess
import sys

import pytest
from launched_jobs import make_material, processes_of, ranks_of, write_job
from polling import wait_until
from ports import free_port

from longrecipe_core.errors import LaunchError
from longrecipe_core.launching import launch_training
from longrecipe_core.training.metrics_file import read_metrics

STEPS = 20


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


def environment(rank, port):
    return os.environ | {
        "LONGRECIPE_MACHINE_RANK": str(rank),
        "LONGRECIPE_MAIN_ADDRESS": f"127.0.0.1:{port}",
        "OMP_NUM_THREADS": "1",
    }


class Machines:
    """A flow on machine 0, which restarts the job as a stage does, and a follower on machine 1."""

    def __init__(self, job, restarts=0):
        self.directory, port = job.parent, free_port()
        code = (
            "import pathlib, threading\n"
            "from longrecipe_core.launching import launch_training\n"
            "from tasks.training_run import with_restarts\n"
            "log = lambda line: print(line, flush=True)\n"
            f"job, stop = pathlib.Path({str(job)!r}), threading.Event()\n"
            f"with_restarts(lambda: launch_training(job, cuda=False, log=log, stop=stop), newest=lambda: 0,\n"
            f"    restarts={restarts}, stop=stop, log=log)\n"
        )
        commands = [[sys.executable, "-c", code], [sys.executable, "-m", "longrecipe_core.launching", str(job)]]
        self.outputs = [self.directory / f"machine-{rank}.txt" for rank in range(2)]
        self.processes = []
        for rank in (1, 0):  # the follower may well be there first
            with self.outputs[rank].open("w") as output:
                self.processes.insert(
                    0,
                    subprocess.Popen(
                        commands[rank], stdout=output, stderr=subprocess.STDOUT, env=environment(rank, port)
                    ),
                )

    def text(self, rank):
        return self.outputs[rank].read_text()

    def codes(self):
        wait_until(
            lambda: all(process.poll() is not None for process in self.processes),
            f"for both to end: {self.text(0)[-1500:]} {self.text(1)[-1500:]}",
        )
        return [process.returncode for process in self.processes]


@pytest.fixture
def machines():
    started = []

    def start(job, restarts=0):
        started.append(Machines(job, restarts))
        return started[-1]

    yield start
    for each in started:
        for process in each.processes:
            process.kill()
            process.wait()
        wait_until(lambda each=each: not processes_of(each.directory), "for the job to go")


@pytest.fixture(scope="module")
def one(material, tmp_path_factory):
    """Losses of the same job in one process."""
    job = write_job(material, tmp_path_factory.mktemp("one"), steps=STEPS, processes=1)
    launch_training(job, cuda=False, log=lambda line: None)
    return [row["loss"] for row in read_metrics(job.parent / "logs" / "metrics.jsonl")]


@pytest.mark.parametrize("processes", [2, 4])
def test_two_machines_train_the_curve_of_one_process(material, one, machines, tmp_path, processes):
    job = write_job(material, tmp_path / "run", steps=STEPS, processes=processes, machines=2)
    both = machines(job)
    assert both.codes() == [0, 0], both.text(0) + both.text(1)
    rows = read_metrics(job.parent / "logs" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert one[-1] < one[0] - 0.5  # it does learn
    assert max(abs(row["loss"] - loss) for row, loss in zip(rows, one, strict=True)) < 1e-4
    assert f"{processes} ranks" in both.text(0)
    assert f"/{STEPS} loss" not in both.text(1)  # rank 0 tells, and is on machine 0


def test_a_rank_killed_on_the_other_machine_is_told_and_both_start_again(material, machines, tmp_path):
    job = write_job(material, tmp_path / "run", steps=400, machines=2)
    both = machines(job, restarts=1)
    metrics = job.parent / "logs" / "metrics.jsonl"
    wait_until(lambda: len(read_metrics(metrics)) >= 15, "for a step past the first checkpoint")
    os.kill(ranks_of(job.parent)[1].pid, signal.SIGKILL)
    assert both.codes() == [0, 0], both.text(0) + both.text(1)
    (again,) = [line for line in both.text(0).splitlines() if "starts again" in line]
    assert again.startswith("machine 1: training job ")
    assert "rank 1 was killed by SIGKILL" in again
    assert [row["step"] for row in read_metrics(metrics)] == list(range(1, 401))


def test_an_error_ends_both_machines(material, machines, tmp_path):
    both = machines(write_job(material, tmp_path / "run", steps=400, machines=2, learning_rate=1e30, clip=1e30))
    assert both.codes() == [1, 1]
    assert "TrainingError: step " in both.text(0).splitlines()[-1]
    assert "LaunchError: " in both.text(1).splitlines()[-1]


def test_sigterm_on_the_other_machine_saves_and_is_told(material, machines, tmp_path):
    both = machines(write_job(material, tmp_path / "run", steps=20000, machines=2, checkpoint_every=20000))
    metrics = tmp_path / "run" / "logs" / "metrics.jsonl"
    wait_until(lambda: len(read_metrics(metrics)) >= 3, "for a step")
    both.processes[1].send_signal(signal.SIGTERM)
    assert both.codes() == [1, 75]
    assert "JobPreemptedError: " in both.text(0).splitlines()[-1]
    (saved,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert f"the state after step {saved.name[5:]} is saved" in both.text(0)


def test_what_the_environment_must_tell(material, tmp_path, monkeypatch):
    job = write_job(material, tmp_path / "run", steps=STEPS, machines=2)
    monkeypatch.delenv("LONGRECIPE_MACHINE_RANK", raising=False)
    monkeypatch.delenv("SLURM_NODEID", raising=False)

    def refused(match):
        with pytest.raises(LaunchError, match=match):
            launch_training(job, cuda=False, log=lambda line: None)

    refused("launch.machines is 2: set LONGRECIPE_MACHINE_RANK to this machine's number")
    monkeypatch.setenv("LONGRECIPE_MACHINE_RANK", "2")
    refused("LONGRECIPE_MACHINE_RANK is '2': with launch.machines 2 it is one of 0 to 1")
    monkeypatch.setenv("LONGRECIPE_MACHINE_RANK", "0")
    monkeypatch.setenv("LONGRECIPE_MAIN_ADDRESS", "somewhere")
    refused("LONGRECIPE_MAIN_ADDRESS is 'somewhere': .* HOST:PORT of machine 0")
    monkeypatch.setenv("LONGRECIPE_MAIN_ADDRESS", "127.0.0.1:1234")
    monkeypatch.setenv("LONGRECIPE_MACHINE_RANK", "1")
    refused("the flow runs on machine 0; on this one run `python -m longrecipe_core.launching")
