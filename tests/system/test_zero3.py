"""DeepSpeed's ZeRO-3 is the single process's training too; for those who have it (`pip install '.[deepspeed]'`)."""

import importlib.util

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_material import NOISY, assert_same_bits, curve, kill_after, largest_difference, printed, train, write_job

pytestmark = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")

TWENTY = {"steps": 20, "global_batch": 6}
ZERO3 = {"sharding": "zero3"}


@pytest.mark.parametrize(
    ("processes", "launch"),
    [
        (2, {"activation_checkpointing": "full", "micro_batch": 3}),
        (3, {"cpu_offload": True}),  # two micro-batches a step; no weight has a size that three divides
        (2, {"parallel": "ulysses", "cpu_offload": True}),
    ],
)
def test_the_curve_and_the_weights_of_one_process(material, finished, tmp_path, processes, launch):
    one = finished(1, training=TWENTY)
    directory = write_job(material, tmp_path / "run", processes, training=TWENTY, launch=ZERO3 | launch)
    train(directory, processes)
    assert max(abs(a - b) for a, b in zip(curve(one), curve(directory), strict=True)) < 1e-4
    assert largest_difference(one, directory) < 1e-4


def test_bf16_is_autocast_over_fp32_weights(material, finished, tmp_path):
    bf16 = {"training": TWENTY | {"precision": "bf16"}}
    exact, one = finished(1, training=TWENTY), finished(1, **bf16)
    directory = train(write_job(material, tmp_path / "run", 2, launch=ZERO3, **bf16), 2)
    weights = load_file(directory / "model" / "model.safetensors").values()
    assert {tensor.dtype for tensor in weights} == {np.dtype("float32")}
    rounding = max(abs(a - b) for a, b in zip(curve(exact), curve(one), strict=True))
    assert max(abs(a - b) for a, b in zip(curve(one), curve(directory), strict=True)) < rounding
    assert curve(directory)[0] != curve(exact)[0]


def test_killed_and_resumed_is_bit_identical(material, finished, tmp_path):
    launch = ZERO3 | {"cpu_offload": True, "checkpoint_every": 2}
    whole = finished(2, NOISY, launch=launch)
    directory = write_job(material, tmp_path / "run", 2, launch=launch)
    kill_after(directory, 2, 20, NOISY)
    train(directory, 2, NOISY)
    assert "step 0 of" not in printed(directory)
    assert_same_bits(whole, directory)
    assert curve(directory) == curve(whole)


def test_a_run_moves_to_other_sharding_and_back(material, finished, tmp_path):
    directory = tmp_path / "run"
    for launch, until in ((ZERO3, 16), ({"sharding": "fsdp2"}, 30), (ZERO3 | {"cpu_offload": True}, None)):
        write_job(material, directory, 2, launch=launch)
        if until is None:
            train(directory, 2)
        else:
            kill_after(directory, 2, until)
    assert "sharding fsdp2, now zero3" in printed(directory)
    assert max(abs(a - b) for a, b in zip(curve(directory), curve(finished(1)), strict=True)) < 1e-4
