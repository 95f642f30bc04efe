"""Kills for memory: where their number is read, and that a killed job is told apart by it."""

import sys

import pytest

from longrecipe_core.errors import JobKilledError, JobOutOfMemoryError
from longrecipe_core.launching import supervised
from longrecipe_core.launching.memory_kills import memory_kills


@pytest.fixture
def system(tmp_path):
    """Writes files as the kernel shows them; returns the number that is read."""

    def read(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return memory_kills(tmp_path / "proc", tmp_path / "cgroup")

    return read


VMSTAT = {"proc/vmstat": "pgfault 5\noom_kill 9\n"}


def test_version_2(system):
    events = {"cgroup/a/b/memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 1\n"}
    assert system(VMSTAT | events | {"proc/self/cgroup": "0::/a/b\n"}) == 2


def test_version_1_beside_an_empty_version_2(system):
    control = {"cgroup/memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"}
    table = {"proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/a\n1:cpuset:/x\n0::/\n"}
    assert system(VMSTAT | control | table) == 4


def test_the_machine_s_where_no_control_group_counts(system):
    assert system({"proc/self/cgroup": "0::/\n"}) is None
    assert system(VMSTAT) == 9


def test_this_system_tells_it():
    assert isinstance(memory_kills(), int)


KILLED = "import os, pathlib, signal; {}; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize("kills", [1, 2])
def test_a_job_that_is_killed_while_the_number_rises_was_killed_for_memory(system, tmp_path, monkeypatch, kills):
    """The job stands in for the kernel, which counts the kill."""
    system({"proc/vmstat": "oom_kill 1\n"})
    monkeypatch.setattr(supervised, "memory_kills", lambda: memory_kills(tmp_path / "proc", tmp_path / "cgroup"))
    count = f"pathlib.Path({str(tmp_path / 'proc' / 'vmstat')!r}).write_text('oom_kill {kills}\\n')"
    with pytest.raises(JobOutOfMemoryError if kills == 2 else JobKilledError, match="SIGKILL"):
        supervised.run_supervised("job", [sys.executable, "-c", KILLED.format(count)], lambda line: None)
