"""accelerate's launcher with ranks that are a few lines of Python: how each ends, and what is told of it."""

import contextlib
import os
import signal
import sys
import threading
import time

import psutil
import pytest
import yaml
from polling import PATIENCE, wait_until
from ports import free_port

from longrecipe_core.errors import JobKilledError, JobPreemptedError, LaunchError
from longrecipe_core.launching.configuration import accelerate_config
from longrecipe_core.launching.outcome import RANK_PREFIX, training_failure
from longrecipe_core.launching.supervised import run_supervised

# It answers SIGTERM as training does: notes it, saves, ends with 75.
RANK = f"""
import os, pathlib, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
print("ready", os.getpid(), flush=True)
for _ in range({10 * PATIENCE}):
    time.sleep(0.1)
    if told:
        time.sleep(0.5)
        print(f"PreemptedError: saved, told {{len(told)}} times", flush=True)
        # together
        sys.exit(75)
"""

# And ends when the other ranks have saved, too, as those of a training do: torchrun ends whoever lives after the first.
TOGETHER = RANK.replace(
    "# together",
    "ranks = int(os.environ.get('WORLD_SIZE', 1))\n"
    "        pathlib.Path(f'{__file__}.saved-{os.environ.get(\"RANK\", 0)}').touch()\n"
    "        while not all(os.path.exists(f'{__file__}.saved-{rank}') for rank in range(ranks)): time.sleep(0.01)",
)


@pytest.fixture(params=[1, 2])
def processes(request):
    return request.param


def launch(tmp_path, processes, code, when_ready=lambda pids, agent: None, grace=PATIENCE):
    """Run `code` on the ranks; `when_ready` gets their pids by rank and the launcher when all have printed `ready`."""
    script, outcome = tmp_path / "rank.py", tmp_path / "outcome.json"
    script.write_text(code)
    config = tmp_path / "accelerate.yaml"
    config.write_text(yaml.safe_dump(accelerate_config(processes, 1, cuda=False, port=free_port())))
    lines, pids = [], {}

    def log(line):
        lines.append(line)
        text = line.partition("]: ")[2] or line
        if text.startswith("ready"):
            pids[int(line[5]) if line.startswith("[rank") else 0] = int(text.split()[1])
            if len(pids) == processes:
                when_ready(pids, psutil.Process(pids[0]).parent())

    command = [
        *(sys.executable, "-m", "longrecipe_core.launching.agent", str(outcome), str(grace)),
        *("--config_file", str(config), "--tee", "3", "--log_dir", str(tmp_path / "ranks"), str(script)),
    ]
    environment = {"ACCELERATE_USE_CPU": "true", "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": RANK_PREFIX}
    environment["OMP_NUM_THREADS"] = "1"

    def failure(what, code, tail):
        return training_failure(what, code, tail, outcome, ranks=range(processes), collective_timeout=10)

    try:
        run_supervised("job", command, log, environment, grace=grace, failure=failure)
    finally:
        launch.lines = lines
        assert not [pid for pid in pids.values() if psutil.pid_exists(pid)]
    return lines


def test_lines_carry_their_rank_and_the_end_is_good(tmp_path, processes):
    lines = launch(tmp_path, processes, "import os; print('world', os.environ.get('WORLD_SIZE'))")
    assert sorted(lines) == (["[rank0]: world 2", "[rank1]: world 2"] if processes == 2 else ["world None"])


def test_a_killed_rank_is_told(tmp_path, processes):
    last = processes - 1
    with pytest.raises(JobKilledError, match=f"rank {last} was killed by SIGKILL; its last line: ready"):
        launch(tmp_path, processes, RANK, lambda pids, agent: os.kill(pids[last], signal.SIGKILL))


def test_a_killed_launcher_is_told(tmp_path, processes):
    with pytest.raises(JobKilledError, match="its launcher was killed by SIGKILL"):
        launch(tmp_path, processes, RANK, lambda pids, agent: agent.kill())


def test_an_error_of_a_rank_is_told(tmp_path, processes):
    code = f"import os\nif os.environ.get('RANK', '0') == '{processes - 1}': raise ValueError('7 is odd')\n{RANK}"
    with pytest.raises(LaunchError, match=f"code 1: rank {processes - 1}: ValueError: 7 is odd") as raised:
        launch(tmp_path, processes, code)
    assert type(raised.value) is LaunchError


@pytest.mark.parametrize("whom", ["supervisor", "launcher", "both, again and again"])
def test_sigterm_reaches_the_ranks_once_and_they_save(tmp_path, processes, whom):
    def tell(pids, agent):
        if whom != "launcher":
            agent.parent().terminate()
        if whom != "supervisor":
            agent.terminate()
        if whom.startswith("both"):

            def again():
                for _ in range(3):
                    time.sleep(0.1)
                    for process in (agent, supervisor):
                        with contextlib.suppress(psutil.NoSuchProcess):
                            process.terminate()

            supervisor = agent.parent()
            threading.Thread(target=again).start()

    with pytest.raises(JobPreemptedError, match="rank 0: PreemptedError: saved, told 1 times"):
        launch(tmp_path, processes, TOGETHER, tell)
    assert len([line for line in launch.lines if "told 1 times" in line]) == processes


def test_sigterm_to_the_ranks_themselves(tmp_path, processes):
    with pytest.raises(JobPreemptedError, match="saved"):
        launch(
            tmp_path, processes, TOGETHER, lambda pids, agent: [os.kill(pid, signal.SIGTERM) for pid in pids.values()]
        )


def test_ranks_that_do_not_save_in_time_are_killed_and_it_is_preemption_still(tmp_path, processes):
    deaf = RANK.replace("if told:", "if False:")
    with pytest.raises(JobPreemptedError, match="it saved nothing after it was told to end"):
        launch(tmp_path, processes, deaf, lambda pids, agent: agent.parent().terminate(), grace=1.0)


# Imported by every Python that has its directory on PYTHONPATH: the launcher waits where it would import torch.
STOPS_AT_TORCH = """
import importlib.abc, pathlib, sys, time

class Stop(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch" and "longrecipe_core.launching.agent" in sys.orig_argv:
            pathlib.Path(__file__).with_name("reached").touch()
            time.sleep({seconds})

sys.meta_path.insert(0, Stop())
"""


def test_sigterm_before_the_ranks_are_there(tmp_path, monkeypatch):
    """The launcher needs seconds to import torch; SIGTERM then has nobody to save and ends it."""
    place = tmp_path / "stops"
    place.mkdir()
    (place / "sitecustomize.py").write_text(STOPS_AT_TORCH.format(seconds=PATIENCE))
    monkeypatch.setenv("PYTHONPATH", str(place))

    def tell():
        wait_until((place / "reached").exists)
        supervisor = next(
            c for c in psutil.Process().children() if "longrecipe_core.launching.supervisor" in c.cmdline()
        )
        next(c for c in supervisor.children() if "longrecipe_core.launching.agent" in c.cmdline()).terminate()

    thread = threading.Thread(target=tell)
    thread.start()
    with pytest.raises(JobPreemptedError):
        launch(tmp_path, 2, RANK)
    thread.join()
    assert not any("ready" in line for line in launch.lines)


def test_the_job_goes_where_flow_and_supervisor_are_killed_together(tmp_path):
    """What is left then is the launcher's pipe."""
    script, outcome = tmp_path / "rank.py", tmp_path / "outcome.json"
    script.write_text(RANK)
    config = tmp_path / "accelerate.yaml"
    config.write_text(yaml.safe_dump(accelerate_config(2, 1, cuda=False, port=free_port())))
    code = (
        "import sys; from longrecipe_core.launching.supervised import run_supervised;"
        f"run_supervised('job', [sys.executable, '-m', 'longrecipe_core.launching.agent', {str(outcome)!r}, '60',"
        f"'--config_file', {str(config)!r}, {str(script)!r}], lambda line: print(line, flush=True), grace=60)"
    )
    parent = psutil.Popen(
        [sys.executable, "-c", code], stdout=-1, text=True, env=os.environ | {"ACCELERATE_USE_CPU": "true"}
    )
    pids = [int(parent.stdout.readline().split()[1]) for _ in range(2)]
    agent = psutil.Process(pids[0]).parent()
    supervisor = agent.parent()
    supervisor.suspend()  # so that it can't see the flow go
    parent.kill()
    supervisor.kill()
    parent.wait()
    _, alive = psutil.wait_procs([agent, *(psutil.Process(pid) for pid in pids)], timeout=PATIENCE)
    assert not alive
