"""Nothing is lost: jobs that are killed, preempted and moved to other ranks go on as if nothing had been."""

import json
import random

import pytest
from training_material import (
    NOISY,
    STEPS,
    assert_same_bits,
    curve,
    ended,
    kill_after,
    printed,
    train,
    write_job,
)

from longrecipe_core.training.checkpoint import complete_steps

# A checkpoint every two steps, so that many a kill hits a write in flight.
OFTEN, FEW = {"checkpoint_every": 2}, 30
LAYOUTS = {
    "1 rank": (1, {}),
    "2 ranks, DDP": (2, {}),
    "4 ranks, DDP": (4, {}),
    "2 ranks, FSDP2 with offload": (2, {"sharding": "fsdp2", "cpu_offload": True}),
    "4 ranks, FSDP2": (4, {"sharding": "fsdp2"}),
    "2 ranks, ulysses": (2, {"parallel": "ulysses"}),
    "2 ranks, dist-flash": (2, {"parallel": "dist-flash"}),
    "4 ranks, usp": (4, {"parallel": "usp"}),
    "4 ranks, ring beside data parallel": (4, {"parallel": "ring", "sequence_degree": 2}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_twice_and_resumed_is_bit_identical(material, finished, tmp_path, layout):
    processes, launch = LAYOUTS[layout]
    few = {"steps": FEW}
    whole = finished(processes, NOISY, training=few, launch=OFTEN | launch)
    directory = write_job(material, tmp_path / "run", processes, training=few, launch=OFTEN | launch)
    draw = random.Random(layout)
    first = draw.randrange(3, FEW // 3)  # the second is after the first checkpoint, whole by step 4
    for step in (first, draw.randrange(first + 2, FEW // 2)):
        kill_after(directory, processes, step, NOISY)
    train(directory, processes, NOISY)
    assert "step 0 of" not in printed(directory)
    assert_same_bits(whole, directory)
    assert curve(directory) == curve(whole)
    assert len(curve(directory)) == FEW


def test_a_run_moves_to_other_ranks_modes_and_sharding(material, finished, tmp_path):
    directory = tmp_path / "run"
    parts = [
        (1, {}, 16, ""),  # step 7's checkpoint stands before that of step 14 is begun
        (
            2,
            {"micro_batch": 2, "parallel": "ring"},
            25,
            "world size 1, now 2; micro_batch 1, now 2; parallel local, now ring; sequence ranks 1, now 2",
        ),
        (
            4,
            {"sharding": "fsdp2"},
            40,
            "world size 2, now 4; micro_batch 2, now 1; sharding none, now fsdp2; parallel ring, now local; "
            "sequence ranks 2, now 1",
        ),
        (1, {}, None, "world size 4, now 1; sharding fsdp2, now none"),
    ]
    for processes, launch, until, told in parts:
        write_job(material, directory, processes, launch=launch)
        if until is None:
            train(directory, processes)
        else:
            kill_after(directory, processes, until)
        assert (f"was reached with {told}: the loss curve goes on" in printed(directory)) == bool(told)
    assert max(abs(a - b) for a, b in zip(curve(directory), curve(finished(1)), strict=True)) < 1e-4


STALE = """
import os, sys
import longrecipe_core.training.checkpoint as checkpoint
plain = checkpoint.complete_steps
if os.environ["RANK"] == "1":
    checkpoint.complete_steps = lambda directory: plain(directory)[:-1]
from longrecipe_core.training.__main__ import main
sys.exit(main())
"""


def test_ranks_go_on_from_the_same_step_where_one_has_an_old_listing(material, finished, tmp_path):
    directory = write_job(material, tmp_path / "run", 2)
    kill_after(directory, 2, 23)
    assert len(complete_steps(directory / "checkpoints")) == 2
    train(directory, 2, STALE)
    assert_same_bits(finished(2), directory)


def test_what_fails_after_the_last_step_is_all_that_is_done_again(material, finished, tmp_path):
    """The model could not be written: no step is taken twice."""
    directory = write_job(material, tmp_path / "run", 1)
    directory.joinpath("model").write_text("a file where the model's directory should be")
    assert ended(directory, 1) == [1]
    assert complete_steps(directory / "checkpoints")[-1] == STEPS
    directory.joinpath("model").unlink()
    train(directory, 1)
    assert f"step {STEPS} of {STEPS}" in printed(directory)
    assert_same_bits(finished(1), directory)
    assert len(curve(directory)) == STEPS


def test_another_number_of_steps_is_refused(material, tmp_path):
    directory = write_job(material, tmp_path / "run", 1)
    kill_after(directory, 1, 15)
    write_job(material, directory, 1, training={"steps": STEPS + 1})
    assert ended(directory, 1) == [1]
    assert f"was made with steps {STEPS}, this run has {STEPS + 1}: resume with the same" in printed(directory)


# In rank VICTIM's CALL-th forward pass it gets SIGTERM, which no other rank does.
TERMINATED = """
import os, signal
from longrecipe_core.training.loss import SummedLoss
original, calls = SummedLoss.forward, []
def forward(*inputs):
    calls.append(1)
    if len(calls) == CALL and os.environ.get("RANK", "0") == "VICTIM":
        os.kill(os.getpid(), signal.SIGTERM)
    return original(*inputs)
SummedLoss.forward = forward
"""


# Two micro-batches a step: an odd call is the first of step (call + 1) / 2, whose second is not begun then.
@pytest.mark.parametrize(
    ("layout", "victim", "call", "every", "saved"),
    [
        ("2 ranks, DDP", 1, 25, 1000, [12]),
        ("2 ranks, DDP", 1, 25, 2, [10, 12]),  # step 12 is being written when the signal comes
        ("2 ranks, FSDP2 with offload", 0, 26, 1000, [13]),
        ("2 ranks, DDP", 0, 1, 1000, []),
    ],
)
def test_sigterm_to_one_rank_saves_the_last_whole_step(
    material, finished, tmp_path, layout, victim, call, every, saved
):
    processes, launch = LAYOUTS[layout]
    few = {"steps": FEW}
    whole = finished(processes, NOISY, training=few, launch=OFTEN | launch)
    launch = {"checkpoint_every": every} | launch
    directory = write_job(material, tmp_path / "run", processes, training=few, launch=launch)
    code = TERMINATED.replace("CALL", str(call)).replace("VICTIM", str(victim)) + NOISY
    assert ended(directory, processes, code) == [75, 75], printed(directory)
    assert complete_steps(directory / "checkpoints") == saved
    last = saved[-1] if saved else 0
    assert f"PreemptedError: extend: told to end by SIGTERM; the state after step {last} is" in printed(directory)
    train(directory, processes, NOISY)
    assert f"step {last} of {FEW}" in printed(directory)
    assert_same_bits(whole, directory)
    assert curve(directory) == curve(whole)


def test_a_write_that_fails_on_one_rank_ends_them_all_with_its_reason(material, tmp_path):
    directory = write_job(material, tmp_path / "run", 2)
    # No file of this rank may be above 100 kB; its part of the state is.
    limited = """
import os, resource, sys
if os.environ["RANK"] == "1":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from longrecipe_core.training.__main__ import main
sys.exit(main())
"""
    assert ended(directory, 2, limited) == [1, 1], printed(directory)
    for rank in (0, 1):
        assert "TrainingError: " in printed(directory, rank)
        assert "step-7.partial could not be written: rank 1: " in printed(directory, rank)
    assert complete_steps(directory / "checkpoints") == []
    train(directory, 2)


def test_the_wait_for_checkpoints_is_in_the_metrics(finished):
    rows = [json.loads(line) for line in (finished(1) / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["checkpoint_wait"] <= row["seconds"] for row in rows)
    saving = [row["checkpoint_wait"] for row in rows if row["step"] % 7 == 0]
    assert min(saving) > 0
