"""Which rank ended of what, from lines and exit codes as they were seen."""

import json

import pytest

from longrecipe_core.errors import JobKilledError, JobPreemptedError, LaunchError, RendezvousError
from longrecipe_core.launching.outcome import Tail, cause, last_lines, plain_failure, training_failure

CLOSED = "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:43210"
GLOO_TIMEOUT = "RuntimeError: [gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 10000ms for recv operation"
NCCL_TIMEOUT = "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12, OpType=ALLREDUCE)"


def ended(tmp_path, code, lines, failures=None, told=False, ranks=2):
    """The error of a job whose ranks printed `lines` and ended as (rank, code, second) in `failures` say."""
    tail = Tail()
    for line in lines:
        tail.add(line)
    outcome = tmp_path / "outcome.json"
    if failures is not None:
        rows = [dict(zip(("rank", "code", "second"), failure, strict=True)) for failure in failures]
        outcome.write_text(json.dumps({"told_to_end": told, "failures": rows}))
    return training_failure("job", code, tail, outcome, ranks=range(ranks), collective_timeout=10)


def test_the_killed_rank_is_the_cause_and_not_the_one_that_lost_its_connection(tmp_path):
    lines = ["[rank1]: step 3/9 loss 2.0", f"[rank0]: {CLOSED}"]
    error = ended(tmp_path, 1, lines, [(0, 1, 100), (1, -9, 100)])
    assert type(error) is JobKilledError
    assert str(error) == "job: rank 1 was killed by SIGKILL; its last line: step 3/9 loss 2.0"


def test_the_rank_with_an_error_of_its_own_is_the_cause(tmp_path):
    lines = [f"[rank0]: [rank0]: {CLOSED}", "[rank1]: TrainingError: step 4: the loss is nan"]
    error = ended(tmp_path, 1, lines, [(0, 1, 100), (1, 1, 100)])
    assert type(error) is LaunchError
    assert str(error) == "job ended with code 1: rank 1: TrainingError: step 4: the loss is nan"


def test_a_rank_that_torchrun_had_to_end_after_another_failed_was_not_killed_from_outside(tmp_path):
    error = ended(tmp_path, 1, ["[rank0]: ValueError: no"], [(0, 1, 100), (1, -9, 131)])
    assert type(error) is LaunchError
    assert "rank 0: ValueError: no" in str(error)
    error = ended(tmp_path, 1, ["[rank0]: ValueError: no"], [(0, 1, 100), (1, -15, 100)])
    assert type(error) is LaunchError


@pytest.mark.parametrize(("line", "code"), [(GLOO_TIMEOUT, 1), (NCCL_TIMEOUT, -6)])
def test_a_collective_that_timed_out_names_the_rank_that_did_not_arrive(tmp_path, line, code):
    error = ended(tmp_path, 1, [f"[rank0]: {line}", f"[rank2]: {CLOSED}"], [(0, code, 100), (2, 1, 100), (1, -9, 131)])
    assert type(error) is LaunchError
    assert "a collective timed out after launch.collective_timeout 10 s: rank 1 did not arrive" in str(error)


def test_a_rank_that_exits_with_75_was_preempted(tmp_path):
    lines = ["[rank0]: PreemptedError: base: the state after step 7 is saved"]
    error = ended(tmp_path, 75, lines, [(0, 75, 100), (1, -15, 100)])
    assert type(error) is JobPreemptedError
    assert "the state after step 7 is saved" in str(error)
    error = ended(tmp_path / "none", 75, [])
    assert type(error) is JobPreemptedError
    assert "saved nothing after it was told" in str(error)


def test_a_rank_that_saved_because_another_failed_was_not_preempted(tmp_path):
    """torchrun tells the others by SIGTERM, too."""
    saved = "[rank0]: PreemptedError: base: the state after step 7 is saved"
    assert type(ended(tmp_path, 1, [saved], [(1, -9, 100), (0, 75, 100)])) is JobKilledError
    error = ended(tmp_path, 1, [saved, "[rank1]: ValueError: no"], [(1, 1, 100), (0, 75, 100)])
    assert (type(error), str(error)) == (LaunchError, "job ended with code 1: rank 1: ValueError: no")
    error = ended(tmp_path, 1, [saved, f"[rank1]: {CLOSED}"], [(1, 1, 100), (0, 75, 100)])
    assert type(error) is JobPreemptedError


def test_supervisor_and_launcher_killed(tmp_path):
    error = ended(tmp_path, -9, [])
    assert (type(error), str(error)) == (JobKilledError, "job: its supervisor was killed by SIGKILL")
    error = ended(tmp_path, 137, [])
    assert (type(error), str(error)) == (JobKilledError, "job: its launcher was killed by SIGKILL")


def test_one_rank_has_no_prefix(tmp_path):
    error = ended(tmp_path, 1, ["step 1/9", "TrainingError: no"], [(0, 1, 100)], ranks=1)
    assert str(error) == "job ended with code 1: rank 0: TrainingError: no"
    error = ended(tmp_path, 1, ["step 1/9"], [(0, -9, 100)], ranks=1)
    assert type(error) is JobKilledError


def test_an_evaluation_is_one_process():
    tail = Tail()
    tail.add("EvaluationError: no text")
    assert str(plain_failure("job", 1, tail)) == "job ended with code 1: EvaluationError: no text"
    assert type(plain_failure("job", 137, tail)) is JobKilledError


def test_a_rank_is_told_once():
    tail = Tail()
    assert tail.add("[rank1]: [rank1]: Traceback") == "[rank1]: Traceback"
    assert tail.add("no rank") == "no rank"
    assert (tail.of(1), tail.of(None)) == (["Traceback"], ["no rank"])


def test_the_cause_is_the_first_error_and_not_what_follows_from_it():
    tail = ["step 3/9 loss 2.0", "TrainingError: step 4: the loss is nan", "x.errors.ChildFailedError: ", "exitcode: 1"]
    assert cause(tail) == "TrainingError: step 4: the loss is nan"
    assert cause(["only this"]) == "only this"
    assert cause([]) == "it printed nothing"


def test_last_lines_are_those_of_the_machine_s_ranks(tmp_path):
    for local, text in ((0, "a\nb\nc\n"), (1, "d\n")):
        directory = tmp_path / "none_x" / "attempt_0" / str(local)
        directory.mkdir(parents=True)
        (directory / "stdout.log").write_text(text)
    assert last_lines(tmp_path, range(2, 4), count=2) == ["[rank2]: b", "[rank2]: c", "[rank3]: d"]


# As torch 2.13 tells them.
DIST = "torch.distributed.Dist"
NO_MAIN = f"{DIST}NetworkError: The client socket has timed out after 2000ms while trying to connect to (127.0.0.1, 9)."
NO_OTHERS = f"{DIST}StoreError: Timed out after 3 seconds waiting for clients. 1/2 clients joined."
TAKEN = (
    f"{DIST}NetworkError: The server socket has failed to listen on any local network address. "
    "port: 56639, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use"
)


@pytest.mark.parametrize("line", [NO_MAIN, NO_OTHERS, TAKEN])
def test_ranks_that_do_not_find_each_other(tmp_path, line):
    of_launcher = ended(tmp_path, 1, [line])
    of_ranks = ended(tmp_path, 1, [f"[rank0]: {line}", f"[rank1]: {CLOSED}"], [(0, 1, 100), (1, 1, 100)])
    assert {type(of_launcher), type(of_ranks)} == {RendezvousError}
    assert f"did not find each other: rank 0: {line}" in str(of_ranks)


def test_a_rank_that_fails_at_the_start_is_the_cause_and_not_the_one_that_waits_for_it(tmp_path):
    lines = [f"[rank0]: {NO_OTHERS}", "[rank1]: ModelError: no config"]
    error = ended(tmp_path, 1, lines, [(1, 1, 100), (0, 1, 103)])
    assert type(error) is LaunchError
