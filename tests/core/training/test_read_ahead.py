"""Reading ahead changes nothing but the waiting."""

import json
import threading
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from polling import wait_until

from longrecipe_core.errors import TrainingError
from longrecipe_core.training.data import Batches, Sample, read_ahead
from longrecipe_core.training.metrics import Metrics


class Counted:
    """Seven samples; notes which were read, and fails at one if asked to."""

    in_order = False

    def __init__(self, fails_at=None):
        self.read, self.threads, self.fails_at = [], set(), fails_at

    def __len__(self):
        return 7

    def sample(self, number):
        self.read.append(number)
        self.threads.add(threading.current_thread().name)
        if number == self.fails_at:
            raise TrainingError(f"sample {number} is damaged")
        ids = 10 * number + np.arange(3)
        return Sample(ids, ids + 1, ids + 2, np.array([0, 2]))


def batches_of(samples, rank=0):
    return Batches(samples, global_batch=4, micro_batch=2, rank=rank, world_size=2, seed=11, stage="extend")


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


@settings(max_examples=30)
@given(first=st.integers(0, 12), steps=st.integers(0, 12), rank=st.integers(0, 1))
def test_steps_are_those_read_one_by_one(first, steps, rank):
    plain, ahead = Counted(), Counted()
    expected = [(step, batches_of(plain, rank).step(step)) for step in range(first, steps)]
    found = list(read_ahead(batches_of(ahead, rank), first, steps))
    assert [read.step for read in found] == [step for step, _ in expected]
    for read, (_, batches) in zip(found, expected, strict=True):
        assert [batch.numbers for batch in read.batches] == [batch.numbers for batch in batches]
        for one, other in zip(read.batches, batches, strict=True):
            assert torch.equal(one.input_ids, other.input_ids)
            assert torch.equal(one.position_ids, other.position_ids)
            assert torch.equal(one.labels, other.labels)
            assert all(map(torch.equal, one.sample_starts, other.sample_starts))
        assert read.waited >= 0
    assert ahead.read == plain.read  # nothing is read twice, and nothing behind the last step
    assert not readers()


def test_the_next_step_is_read_while_one_is_computed_and_no_further():
    samples = Counted()
    with closing(read_ahead(batches_of(samples), 0, 5)) as steps:
        next(steps)
        # This thread asks for nothing meanwhile. Two samples per rank and step.
        wait_until(lambda: len(samples.read) == 4)
    assert len(samples.read) == 4
    assert len(samples.threads) == 1
    assert threading.current_thread().name not in samples.threads
    assert not readers()


def test_an_error_comes_as_it_is_and_at_its_own_step():
    earlier = {n for step in range(2) for batch in batches_of(Counted()).step(step) for n in batch.numbers}
    third = [n for batch in batches_of(Counted()).step(2) for n in batch.numbers]
    fails_at = next(n for n in third if n not in earlier)
    steps = read_ahead(batches_of(Counted(fails_at)), 0, 5)
    assert [next(steps).step, next(steps).step] == [0, 1]
    with pytest.raises(TrainingError, match=f"^sample {fails_at} is damaged$"):
        next(steps)
    assert not readers()


def test_a_step_that_fails_leaves_no_thread():
    def train():
        with closing(read_ahead(batches_of(Counted()), 0, 5)) as steps:
            next(steps)
            assert readers()
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        train()
    assert not readers()


def test_the_share_of_waiting_is_told_and_written(tmp_path, capsys):
    metrics = Metrics(tmp_path / "logs", 0)
    for step, wait in ((1, 0.5), (2, 0.0)):
        row = {"step": step, "steps": 2, "loss": 1.0, "lr": 0.1, "tokens_per_second": 9.0}
        metrics.write(row | {"seconds": 2.0, "data_wait": wait})
    metrics.close()
    assert "waited for data in 12.50% of the steps' time" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [row["data_wait"] for row in rows] == [0.5, 0.0]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "logs" / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("data_wait")] == [(1, 0.5), (2, 0.0)]
