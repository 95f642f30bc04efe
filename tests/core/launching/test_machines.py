"""Which machine this is, and what machines tell each other through files."""

import json
import threading
import time

import pytest
from polling import PATIENCE, wait_until

from longrecipe_core.errors import JobKilledError, LaunchError
from longrecipe_core.launching.follow import Follower
from longrecipe_core.launching.machines import Leader, Machine

ADDRESS = {"LONGRECIPE_MAIN_ADDRESS": "10.0.0.7:29500"}
MAIN = Machine(0, 2, "10.0.0.7", 29500)


def told(directory):
    return json.loads((directory / "attempt.json").read_text())


def fail(directory, machine, attempt, message, kind="JobKilledError"):
    verdict = {"attempt": attempt, "kind": kind, "message": message}
    (directory / f"machine-{machine}.json").write_text(json.dumps(verdict))


def test_one_machine_needs_no_environment():
    machine = Machine.here(1, {})
    assert (machine.rank, machine.host) == (0, "127.0.0.1")


def test_a_machine_is_told_by_the_environment():
    assert Machine.here(2, ADDRESS | {"LONGRECIPE_MACHINE_RANK": "1"}) == Machine(1, 2, "10.0.0.7", 29500)
    assert Machine.here(2, ADDRESS | {"SLURM_NODEID": "1"}).rank == 1
    assert Machine.here(2, ADDRESS | {"SLURM_NODEID": "1", "LONGRECIPE_MACHINE_RANK": "0"}).rank == 0
    assert (
        Machine.here(2, {"LONGRECIPE_MACHINE_RANK": "0", "LONGRECIPE_MAIN_ADDRESS": "[fd00::7]:29500"}).host
        == "fd00::7"
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (ADDRESS, "set LONGRECIPE_MACHINE_RANK"),
        (ADDRESS | {"LONGRECIPE_MACHINE_RANK": "2"}, "LONGRECIPE_MACHINE_RANK is '2': .* one of 0 to 1"),
        (ADDRESS | {"SLURM_NODEID": "x"}, "SLURM_NODEID is 'x'"),
        ({"LONGRECIPE_MACHINE_RANK": "0"}, "LONGRECIPE_MAIN_ADDRESS is ''.* HOST:PORT"),
        ({"LONGRECIPE_MACHINE_RANK": "0", "LONGRECIPE_MAIN_ADDRESS": "host:0"}, "LONGRECIPE_MAIN_ADDRESS is 'host:0'"),
    ],
)
def test_what_is_missing_is_one_clear_line(environment, message):
    with pytest.raises(LaunchError, match=message) as raised:
        Machine.here(2, environment)
    assert "\n" not in str(raised.value)


def lead(directory, end):
    """One attempt whose job does as `end` says, called with the attempt's name and its leader."""
    with Leader(directory, MAIN, 60, None) as leader:
        end(told(directory)["attempt"], leader)


def ending(error):
    def end(attempt, leader):
        raise error

    return end


def test_the_others_are_told_how_an_attempt_ended(tmp_path):
    lead(tmp_path, lambda attempt, leader: None)
    assert told(tmp_path)["state"] == "done"
    for error, state in ((JobKilledError("x"), "ended"), (LaunchError("x"), "failed"), (KeyboardInterrupt(), "failed")):
        with pytest.raises(type(error)):
            lead(tmp_path, ending(error))
        assert told(tmp_path)["state"] == state


def test_another_machine_s_failure_explains_a_lost_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("longrecipe_core.launching.machines.VERDICT_SECONDS", PATIENCE)

    def end(attempt, leader):
        later = threading.Timer(2, fail, (tmp_path, 1, attempt, "rank 1 was killed by SIGKILL"))
        later.start()  # it may be noticed there later than here
        raise LaunchError("rank 0: RuntimeError: Connection closed by peer")

    with pytest.raises(JobKilledError, match="machine 1: rank 1 was killed by SIGKILL"):
        lead(tmp_path, end)
    assert told(tmp_path)["state"] == "ended"


def test_a_failure_here_that_explains_itself_stays(tmp_path):
    def end(attempt, leader):
        fail(tmp_path, 1, attempt, "rank 1 was killed by SIGKILL")
        raise LaunchError("rank 0: TrainingError: nan")

    with pytest.raises(LaunchError, match="rank 0: TrainingError"):
        lead(tmp_path, end)


def test_ranks_that_go_on_waiting_for_another_machine_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("longrecipe_core.launching.machines.VERDICT_SECONDS", 1.0)

    def end(attempt, leader):
        fail(tmp_path, 1, attempt, "rank 1 was killed by SIGKILL")
        assert leader.stop.wait(PATIENCE)
        raise LaunchError("was told to stop")

    with pytest.raises(JobKilledError, match="machine 1: rank 1"):
        lead(tmp_path, end)


def test_a_failure_of_an_earlier_attempt_is_nothing_to_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr("longrecipe_core.launching.machines.VERDICT_SECONDS", 0.0)
    fail(tmp_path, 1, "earlier", "rank 1 was killed by SIGKILL")
    with pytest.raises(LaunchError, match="Connection reset") as raised:
        lead(tmp_path, ending(LaunchError("rank 0: RuntimeError: Connection reset by peer")))
    assert type(raised.value) is LaunchError


def test_the_flow_s_own_stop_reaches_the_job(tmp_path):
    stop = threading.Event()
    with Leader(tmp_path, MAIN, 60, stop) as leader:
        stop.set()
        assert leader.stop.wait(PATIENCE)


def test_a_shared_directory_that_fails_for_moments_ends_nothing(tmp_path):
    shared, away, stop = tmp_path / "shared", tmp_path / "away", threading.Event()
    with Leader(shared, MAIN, 60, stop) as leader:
        shared.rename(away)
        before = leader._beat
        wait_until(lambda: leader._beat >= before + 2)  # one of them at least has met nothing
        away.rename(shared)
        seen = told(shared)["beat"]
        wait_until(lambda: told(shared)["beat"] > seen)
        shared.rename(away)
        stop.set()  # it must reach the job also while the directory fails
        assert leader.stop.wait(PATIENCE)
        away.rename(shared)
    assert told(shared)["state"] == "done"


def follower(tmp_path, patience):
    return Follower(tmp_path / "job.json", cuda=False, log=print, patience=patience)


def test_what_a_killed_flow_left_behind_is_not_joined(tmp_path):
    (tmp_path / "job.launch").mkdir()
    stale = {"attempt": "old", "state": "running", "beat": 7}
    (tmp_path / "job.launch" / "attempt.json").write_text(json.dumps(stale))
    with pytest.raises(LaunchError, match="the main machine announced no attempt in 2 s"):
        follower(tmp_path, 2)._next_attempt()


def test_an_attempt_is_joined_when_its_beat_is_seen(tmp_path):
    joined = []
    waiting = follower(tmp_path, PATIENCE)
    thread = threading.Thread(target=lambda: joined.append(waiting._next_attempt()))
    thread.start()
    with Leader(tmp_path / "job.launch", MAIN, 60, None):
        attempt = told(tmp_path / "job.launch")["attempt"]
        thread.join()
    assert joined == [attempt]
    waiting._joined = attempt
    assert waiting._next_attempt() is None  # it is done

    def fails(attempt, leader):
        waiting._joined = attempt
        raise LaunchError("no")

    with pytest.raises(LaunchError, match=r"^no$"):
        lead(tmp_path / "job.launch", fails)
    with pytest.raises(LaunchError, match="the job failed"):
        waiting._next_attempt()


@pytest.mark.parametrize("gone", ["job.json", "job.launch"])
def test_a_job_whose_files_are_gone_after_it_was_joined_is_done(tmp_path, gone):
    """The stage removes them once its artifact is committed."""
    (tmp_path / "job.json").touch()
    (tmp_path / "job.launch").mkdir()
    here = follower(tmp_path, 1)
    path = tmp_path / gone
    path.rename(tmp_path / "gone")
    with pytest.raises(LaunchError, match="announced no attempt"):
        here._next_attempt()  # of a job that was not joined, nothing is known
    (tmp_path / "gone").rename(path)
    here._joined = "an attempt"
    with pytest.raises(LaunchError, match="announced no attempt"):
        here._next_attempt()  # another one may be announced
    path.rename(tmp_path / "gone")
    assert here._next_attempt() is None


def test_ranks_here_are_ended_with_their_attempt(tmp_path):
    over, stop, threads = threading.Event(), threading.Event(), []

    def end(attempt, leader):
        here = follower(tmp_path, PATIENCE)
        here._joined = attempt
        threads.append(threading.Thread(target=here._stop_with_attempt, args=(over, stop)))
        threads[0].start()
        time.sleep(2.5)
        assert not stop.is_set()
        raise JobKilledError("no")

    with pytest.raises(JobKilledError):
        lead(tmp_path / "job.launch", end)
    assert stop.wait(PATIENCE)
    over.set()
    threads[0].join()
