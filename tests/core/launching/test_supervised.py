"""The supervisor with real processes; the job's environment."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest
from polling import PATIENCE, wait_until

from longrecipe_core.errors import JobKilledError, LaunchError
from longrecipe_core.launching.processes import SUPERVISOR, job_processes, wait_for_jobs
from longrecipe_core.launching.supervised import run_supervised, without_credentials


def test_credentials_do_not_reach_a_job():
    environment = {
        "AWS_SECRET_ACCESS_KEY": "1", "AWS_ENDPOINT_URL": "2", "HF_TOKEN": "3", "HUGGING_FACE_HUB_TOKEN": "4",
        "PREFECT_API_KEY": "5", "DB_PASSWORD": "6", "PATH": "p", "TOKENIZERS_PARALLELISM": "t", "HOME": "h",
        "CUDA_VISIBLE_DEVICES": "0", "NCCL_DEBUG": "x",
    }  # fmt: skip
    kept = {"PATH", "TOKENIZERS_PARALLELISM", "HOME", "CUDA_VISIBLE_DEVICES", "NCCL_DEBUG"}
    assert set(without_credentials(environment)) == kept


def test_lines_and_environment_go_through(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hidden")
    lines = []
    code = "import os; print('a\\rb'); print(os.environ.get('HF_TOKEN'), os.environ['MORE'])"
    run_supervised("job", [sys.executable, "-c", code], lines.append, {"MORE": "seen"})
    assert lines == ["b", "None seen"]


def test_a_failure_names_the_job_its_code_and_its_cause():
    code = "import sys; print('working'); print('ValueError: 7 is odd', file=sys.stderr); sys.exit(3)"
    with pytest.raises(LaunchError, match="job x ended with code 3: ValueError: 7 is odd"):
        run_supervised("job x", [sys.executable, "-c", code], lambda line: None)


GRANDCHILD = (
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
    "print('started', flush=True); time.sleep(600)"
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_goes_with_its_parent_also_what_left_its_session(tmp_path, how):
    marker = f"marker-{os.getpid()}-{how}"
    code = (
        "import sys; from longrecipe_core.launching.supervised import run_supervised;"
        f"run_supervised('job', [sys.executable, '-c', {GRANDCHILD!r}], print, {{'MARKER': {marker!r}}})"
    )
    parent = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "started\n"

    def marked():
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MARKER") == marker:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    # Supervisor, child and grandchild, whose environment can't be read while it is being started.
    wait_until(lambda: len(marked()) == 3)
    parent.send_signal(how)
    parent.wait()
    wait_until(lambda: not marked())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_does_not_outlive_its_supervisor(how):
    def kill_supervisor(line):
        (supervisor,) = [child for child in psutil.Process().children() if SUPERVISOR in child.cmdline()]
        supervisor.send_signal(how)

    with pytest.raises(JobKilledError, match="was killed by SIG"):
        run_supervised("job", [sys.executable, "-c", GRANDCHILD], kill_supervisor)


def test_a_job_that_is_told_to_stop_stops():
    stop = threading.Event()
    with pytest.raises(LaunchError, match="was told to stop"):
        run_supervised("job", [sys.executable, "-c", GRANDCHILD], lambda line: stop.set(), stop=stop)


def test_orphans_of_a_job_that_ended_well_are_ended():
    code = (
        "import os, subprocess, sys;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        "print(os.environ['LONGRECIPE_JOB'])"
    )
    tokens = []
    run_supervised("job", [sys.executable, "-c", code], tokens.append)
    assert job_processes(tokens[0]) == []


# It saves for longer than the 5 seconds that a job has when only its flow is gone, and until the test has seen that it
# does; and prints more than a pipe holds.
SAVES = f"""
import pathlib, signal, sys, time
told, here = [], pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
print("started", flush=True)
for _ in range({10 * PATIENCE}):
    time.sleep(0.1)
    if told:
        break
here.joinpath("told").touch()
deadline = time.monotonic() + 7
while time.monotonic() < deadline or not here.joinpath("seen").exists():
    print("x" * 20000, flush=True)
    time.sleep(0.1)
here.joinpath("saved").touch()
sys.exit(75)
"""


@pytest.mark.parametrize("first", ["supervisor", "flow"])
def test_a_job_that_was_told_saves_also_when_its_flow_goes(tmp_path, first):
    """As when a scheduler signals all processes at once."""
    code = (
        "import sys; from longrecipe_core.launching.supervised import run_supervised;"
        f"run_supervised('job', [sys.executable, '-c', {SAVES!r}, {str(tmp_path)!r}], print, grace={PATIENCE})"
    )
    flow = psutil.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    assert flow.stdout.readline() == "started\n"
    (supervisor,) = flow.children()
    (job,) = supervisor.children()
    if first == "flow":
        flow.terminate()
        supervisor.terminate()
    else:
        supervisor.terminate()
        wait_until((tmp_path / "told").exists)
        flow.terminate()
    flow.stdout.close()
    flow.wait()
    lines = []

    def log(line):
        lines.append(line)
        (tmp_path / "seen").touch()

    wait_for_jobs(tmp_path, log)  # as the next run of the same stage does
    assert (tmp_path / "saved").exists()
    assert lines == [f"waits for process {supervisor.pid}, which still saves its state in {tmp_path}"]
    wait_until(lambda: not supervisor.is_running() and not job.is_running())


def test_a_job_that_ended_well_although_told_is_done():
    code = (
        "import signal, sys, time; told = [];"
        "signal.signal(signal.SIGTERM, lambda number, frame: told.append(number));"
        "print('started', flush=True);"
        "list(iter(lambda: time.sleep(0.1) or not told, False));"
        "print('done')"
    )
    lines = []

    def tell(line):
        lines.append(line)
        if line == "started":  # of this process, that libraries may have given other children
            (supervisor,) = [child for child in psutil.Process().children() if SUPERVISOR in child.cmdline()]
            supervisor.terminate()

    run_supervised("job", [sys.executable, "-c", code], tell, grace=PATIENCE)
    assert lines == ["started", "the job was told to end by SIGTERM", "done"]


def test_preempt_waits_until_this_slurm_job_has_saved_and_leaves_others_alone(tmp_path):
    flows = {}
    for name in ("mine", "another"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seen").touch()
        code = (
            "import sys; from longrecipe_core.launching.supervised import run_supervised;"
            f"run_supervised('job', [sys.executable, '-c', {SAVES!r}, {str(tmp_path / name)!r}], print,"
            f"grace={PATIENCE})"
        )
        environment = os.environ | {"SLURM_JOB_ID": f"{name}-{os.getpid()}"}
        flows[name] = psutil.Popen(
            [sys.executable, "-u", "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert flows[name].stdout.readline() == "started\n"
    lines = threading.Thread(target=flows["mine"].communicate)  # more than a pipe holds
    lines.start()
    subprocess.run(
        [sys.executable, "-m", "longrecipe_core.launching.preempt"],
        env=os.environ | {"SLURM_JOB_ID": f"mine-{os.getpid()}"}, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (tmp_path / "mine" / "saved").exists()
    assert not (tmp_path / "another" / "told").exists()
    lines.join()
    for process in flows["another"].children(recursive=True):
        process.kill()
    flows["another"].communicate()
