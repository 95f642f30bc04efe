"""What one process wrote four ranks read, as shards and as copies, and the other way round."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from polling import PATIENCE
from ports import free_port
from safetensors.torch import load_file
from sharded_ranks import trained

from longrecipe_core.errors import TrainingError
from longrecipe_core.training.checkpoint_tensors import make_stager, my_part, names_in, read, training_tensors, write

RANKS = 4
NAMES = {"embedding.weight", "short.weight", "short.bias"}  # tied weights once, frozen ones not at all


def test_between_one_process_and_four_ranks(tmp_path):
    expected = training_tensors(*trained(seed=0, steps=3))
    assert expected.keys() == {f"model.{name}" for name in NAMES} | {
        f"optimizer.{name}.{key}" for name in NAMES for key in ("exp_avg", "exp_avg_sq", "step")
    }
    write(expected, tmp_path / "alone", None)
    port = free_port()
    script = Path(__file__).with_name("sharded_ranks.py")
    started = [
        subprocess.Popen(
            [sys.executable, script, tmp_path],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": str(RANKS),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(RANKS)
    ]
    assert [process.wait(timeout=PATIENCE) for process in started] == [0] * RANKS
    for name in ("sharded", "copied"):
        tensors = training_tensors(*trained(seed=2, steps=1))
        read(tensors, tmp_path / name, None)
        for key, tensor in tensors.items():
            assert torch.equal(tensor, expected[key]), (name, key)
    # Of a matrix of three rows the last rank has none; of copies each is written once.
    rows = [load_file(tmp_path / "sharded" / f"rank-{rank}.safetensors")["model.short.weight"] for rank in range(RANKS)]
    assert [len(part) for part in rows] == [1, 1, 1, 0]
    copies = [set(load_file(tmp_path / "copied" / f"rank-{rank}.safetensors")) for rank in range(RANKS)]
    assert sum(map(len, copies)) == len(set().union(*copies)) == len(expected)


def test_copies_are_shared_out_evenly():
    tensors = {f"{number}": torch.zeros(100) for number in range(10)} | {"last": torch.zeros(300)}
    parts = [my_part(tensors, rank, 3) for rank in range(3)]
    assert sorted(name for part in parts for name in part) == sorted(tensors)
    sizes = [sum(tensor.nbytes for tensor in part.values()) for part in parts]
    assert max(sizes) - min(sizes) <= 1200


def test_staging_takes_a_copy_into_the_same_buffers_each_time():
    model, optimizer = trained(seed=0, steps=1)
    stager, places = make_stager(torch.device("cpu")), []
    for value in (1.0, 2.0):
        with torch.no_grad():
            model.short.weight.fill_(value)
        staged = stager.stage(training_tensors(model, optimizer))
        with torch.no_grad():
            model.short.weight.fill_(9.0)
        assert bool((staged["model.short.weight"] == value).all())
        places.append({name: tensor.data_ptr() for name, tensor in staged.items()})
    assert places[0] == places[1]


def test_a_tensor_that_is_not_there_is_named(tmp_path):
    write({"model.a": torch.ones(2)}, tmp_path, None)
    assert names_in(tmp_path) == {"model.a"}
    with pytest.raises(TrainingError, match=r"can't be read: rank 0: .*model\.b"):
        read({"model.a": torch.ones(2), "model.b": torch.ones(1)}, tmp_path, None)
    with pytest.raises(TrainingError, match=r"can't be read: rank 0: .*model\.a"):
        read({"model.a": torch.ones(3)}, tmp_path, None)
