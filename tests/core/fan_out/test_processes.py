"""Real worker processes: order, laziness, deaths, errors, and that nothing outlives its parent."""

import inspect
import itertools
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import shard_work
from polling import PATIENCE, wait_until

from longrecipe_core import errors
from longrecipe_core.errors import CorpusError, FanOutError, LongRecipeError
from longrecipe_core.fan_out import Here, Processes, default_workers, in_order, local_engine, portable
from longrecipe_core.fan_out.processes import cores


def workers_of(pid=None):
    return [
        process
        for process in psutil.Process(pid).children()
        if process.status() != psutil.STATUS_ZOMBIE and "longrecipe_core.fan_out.worker" in " ".join(process.cmdline())
    ]


@pytest.fixture(autouse=True)
def _nothing_remains():
    yield
    wait_until(lambda: not workers_of(), "for workers to go with their iterator")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_results_are_those_of_one_process(workers):
    jobs = [7, 3, 9, 1, 1, 0, 12]
    assert list(local_engine(workers).each(shard_work.square, iter(jobs), {})) == [49, 9, 81, 1, 1, 0, 144]


def test_one_worker_is_this_process():
    assert isinstance(local_engine(1), Here)
    assert isinstance(local_engine(2), Processes)


def test_not_given_a_single_job_needs_no_worker_and_several_have_a_process_per_core(tmp_path):
    engine = local_engine(None)
    assert list(engine.each(shard_work.pid, [0], {})) == [os.getpid()]
    assert list(engine.each(shard_work.pid, [], {})) == []
    if cores() > 1:
        assert os.getpid() not in list(engine.each(shard_work.pid, range(4), {}))
    assert 1 <= default_workers() <= 8

    def jobs(good):
        yield from range(good)
        raise CorpusError("no more")

    for good in (0, 1, 2):  # the results of the good jobs come first, as with any engine
        results = []
        with pytest.raises(CorpusError, match="no more"):
            results.extend(map(results.append, engine.each(shard_work.square, jobs(good), {})))
        assert [result for result in results if result is not None] == [number**2 for number in range(good)]


def test_order_is_that_of_the_jobs_and_no_job_is_no_result():
    assert list(Processes(2).each(shard_work.slow_first, range(5), {})) == [0, 1, 2, 3, 4]
    assert list(Processes(2).each(shard_work.slow_first, [], {})) == []


@pytest.mark.parametrize("engine", [Here(), Processes(3)])
def test_jobs_are_taken_as_they_are_needed(engine):
    taken = []
    jobs = (taken.append(number) or number for number in itertools.count())
    results = engine.each(shard_work.square, jobs, {})
    assert list(itertools.islice(results, 10)) == [number * number for number in range(10)]
    results.close()
    assert len(taken) <= 9 + 6  # two per worker are under way when a result is handed out


def test_the_window_is_the_number_of_jobs_ahead_of_the_consumer():
    under_way, most = set(), []

    def submit(number, job):
        under_way.add(number)
        most.append(len(under_way))
        return lambda: under_way.discard(number) or job

    assert list(in_order(submit, "abcdefg", 3)) == list("abcdefg")
    assert max(most) == 3


def test_a_killed_worker_costs_its_own_shard_only(tmp_path):
    lines = []
    engine = Processes(3, lines.append)
    results = list(engine.each(shard_work.killed_once, range(12), {"notes": tmp_path}))
    assert results == [number * number for number in range(12)]
    assert shard_work.notes(tmp_path, "begun") == sorted([*range(12), 5])
    assert shard_work.notes(tmp_path) == list(range(12))
    assert lines == ["shard 5: its worker was killed by SIGKILL; attempt 1 of 3"]


def test_a_shard_that_kills_its_worker_three_times_ends_the_stage(tmp_path):
    lines = []
    with pytest.raises(FanOutError, match=r"shard 2: its worker was killed by SIGKILL, 3 times.*fewer launch.workers"):
        list(Processes(2, lines.append).each(shard_work.killed_always, range(4), {"notes": tmp_path}))
    assert len(lines) == 3
    assert shard_work.notes(tmp_path, "begun").count(2) == 3


def test_a_death_tells_its_exit_code():
    with pytest.raises(FanOutError, match="ended with code 7"):
        list(Processes(2).each(shard_work.ends, range(1), {}))


@pytest.mark.parametrize("engine", [Here(), Processes(2)])
def test_an_error_keeps_its_class_and_message(engine):
    results, got = engine.each(shard_work.fails, range(6), {}), []
    with pytest.raises(CorpusError) as caught:
        got.extend(results)
    assert str(caught.value) == "shard 3: row 17 is no text"
    assert got == [0, 1, 2]


def test_an_error_brings_the_line_that_raised_it():
    with pytest.raises(CorpusError) as caught:
        list(Processes(2).each(shard_work.fails, range(6), {}))
    assert any("shard_work.py" in text and "in fails" in text for text in caught.value.__notes__)


def test_what_cannot_be_sent_is_told_and_no_death():
    lines = []
    engine = Processes(2, lines.append)
    with pytest.raises(FanOutError) as caught:
        list(engine.each(shard_work.fails_unsendably, range(1), {}))
    assert str(caught.value) == "TwoPartsError: this and that"
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        list(engine.each(shard_work.returns_unsendable, range(1), {}))
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        list(engine.each(lambda inputs, job: job, range(1), {}))
    assert lines == []


def test_every_error_of_ours_can_be_sent():
    ours = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LongRecipeError)]
    assert len(ours) > 10
    for kind in ours:
        assert type(portable(kind("one line"))) is kind


@pytest.mark.parametrize("engine", [Here(), Processes(2)])
def test_jobs_that_raise_end_it_after_the_results_before(engine):
    def jobs():
        yield from range(5)
        raise CorpusError("no sixth")

    results, got = engine.each(shard_work.square, jobs(), {}), []
    with pytest.raises(CorpusError, match="no sixth"):
        got.extend(results)
    assert got == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("engine", [Here(), Processes(2)])
def test_of_two_errors_the_first_in_order_is_told(engine):
    def jobs():
        yield from range(5)
        raise ValueError("the jobs' own, later")

    with pytest.raises(CorpusError, match="row 17"):
        list(engine.each(shard_work.fails, jobs(), {}))


def test_closing_early_kills_what_is_under_way(tmp_path):
    results = Processes(2).each(shard_work.counted_square, itertools.count(), {"notes": tmp_path})
    assert next(results) == 0
    assert workers_of()
    results.close()
    assert not workers_of()


def test_an_interrupt_kills_shards_under_way(tmp_path):
    def jobs():
        yield from range(2)
        wait_until(lambda: len(shard_work.notes(tmp_path, "begun")) == 2, "for the shards to begin")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Processes(2).each(shard_work.sleeps, jobs(), {"notes": tmp_path}))
    assert not workers_of()


def test_threads_are_shared_before_any_library_is_loaded():
    workers = 2
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    assert list(Processes(workers).each(shard_work.environment, range(2), {})) == 2 * [(threads, threads, [])]


def test_prints_of_workers_are_no_output_of_ours(capfd):
    assert list(Processes(2).each(shard_work.prints, range(2), {})) == [0, 1]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("from a worker") == 2


def test_results_larger_than_a_pipe_come_whole():
    sizes = [0, 1, 3_000_000, 70_000]
    assert [len(result) for result in Processes(2).each(shard_work.big, sizes, {})] == sizes


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
import shard_work
from longrecipe_core.fan_out import Processes

# No `if __name__ == "__main__"`: a worker does not run its parent's main module.
list(Processes(2).each(shard_work.{function}, range(4), {{"notes": sys.argv[2]}}))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_worker_outlives_its_parent(tmp_path, end):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(function="sleeps"), str(Path(__file__).parent), str(tmp_path)],
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: len(shard_work.notes(tmp_path, "begun")) == 2 or parent.poll() is not None, "for the shards")
        assert parent.poll() is None, parent.stderr.read().decode()
        workers = workers_of(parent.pid)
        assert len(workers) == 2
        parent.send_signal(end)
        parent.communicate(timeout=PATIENCE)
        wait_until(lambda: not any(alive(worker) for worker in workers), "for workers to go with their parent")
    finally:
        parent.kill()
        parent.wait()


def alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
