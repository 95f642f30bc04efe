"""How often a job is started again, and after what."""

import threading

import pytest

from longrecipe_core.errors import JobKilledError, JobPreemptedError, LaunchError
from tasks.training_run import with_restarts

KILLED, PREEMPTED, OWN = JobKilledError("rank 1 was killed"), JobPreemptedError("preempted"), LaunchError("nan")


def run(*ends, restarts=2, stop=None):
    """Launches that end so: (error or None, newest checkpoint by then); returns launches made, the error, the lines."""
    made, lines, step = [], [], [0]

    def launch():
        error, step[0] = ends[len(made)]
        made.append(step[0])
        if error is not None:
            raise error

    raised = None
    try:
        with_restarts(
            launch, newest=lambda: step[0], restarts=restarts, stop=stop or threading.Event(), log=lines.append
        )
    except LaunchError as error:
        raised = error
    return len(made), raised, lines


def test_a_job_that_is_killed_or_preempted_is_started_again_with_one_line_each():
    launches, raised, lines = run((KILLED, 0), (PREEMPTED, 0), (None, 9))
    assert (launches, raised) == (3, None)
    assert lines == [
        "rank 1 was killed; starts again after step 0, restart 1 of launch.restarts 2",
        "preempted; starts again after step 0, restart 2 of launch.restarts 2",
    ]


def test_at_most_so_often_in_a_row():
    assert run((KILLED, 0), (KILLED, 0), (KILLED, 0), (None, 9))[:2] == (3, KILLED)
    assert run((KILLED, 0), (None, 9), restarts=0)[:2] == (1, KILLED)


def test_a_newer_checkpoint_counts_from_the_start_again():
    assert run((KILLED, 5), (KILLED, 5), (KILLED, 10), (KILLED, 10), (KILLED, 15), (None, 20))[:2] == (6, None)
    assert run((KILLED, 5), (KILLED, 5), (KILLED, 5), (None, 9))[:2] == (3, KILLED)


@pytest.mark.parametrize("step", [0, 5])
def test_an_error_of_its_own_would_come_again(step):
    assert run((OWN, step), (None, 9))[:2] == (1, OWN)


def test_a_job_that_is_to_stop_is_not_started_again():
    stop = threading.Event()
    stop.set()
    assert run((KILLED, 5), (None, 9), stop=stop)[:2] == (1, KILLED)
