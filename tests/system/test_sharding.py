"""FSDP2 is the single process's training, computed elsewhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from training_material import curve, ended, largest_difference, printed, train, write_job

TWENTY = {"steps": 20}
FSDP2 = {"sharding": "fsdp2"}


@pytest.mark.parametrize(
    ("processes", "launch"),
    [
        (1, {"activation_checkpointing": "full", "micro_batch": 2}),
        (2, {"checkpoint_every": 1000}),  # two micro-batches a step
        (2, {"cpu_offload": True, "activation_checkpointing": "full"}),
        (4, {}),
        (4, {"cpu_offload": True}),
    ],
)
def test_the_curve_and_the_weights_of_one_process(material, finished, tmp_path, processes, launch):
    one = finished(1, training=TWENTY)
    directory = write_job(material, tmp_path / "run", processes, training=TWENTY, launch=FSDP2 | launch)
    train(directory, processes)
    assert curve(one)[-1] < curve(one)[0] - 0.5  # it does learn
    assert max(abs(a - b) for a, b in zip(curve(one), curve(directory), strict=True)) < 1e-4
    assert largest_difference(one, directory) < 1e-4
    assert (directory / "model" / "config.json").read_text() == (one / "model" / "config.json").read_text()


def test_each_rank_keeps_its_shard_only(material, tmp_path):
    """What is in the checkpoint's files is what the ranks had: of each matrix a quarter."""
    directory = write_job(material, tmp_path / "run", 4, training={"steps": 4}, launch=FSDP2 | {"checkpoint_every": 2})
    train(directory, 4)
    wholes = load_file(directory / "model" / "model.safetensors")
    for rank in range(4):
        with safe_open(directory / "checkpoints" / "step-2" / f"rank-{rank}.safetensors", framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        for name, whole in wholes.items():
            rows = -(-whole.shape[0] // 4)
            mine = min(rows, max(0, whole.shape[0] - rank * rows))
            for kind in (f"model.{name}", f"optimizer.{name}.exp_avg", f"optimizer.{name}.exp_avg_sq"):
                assert shapes[kind] == (mine, *whole.shape[1:])


def test_tied_weights_stay_tied_and_load_with_plain_transformers(material, finished, tmp_path):
    tied = tmp_path / "tied"
    shutil.copytree(material / "model", tied)
    config = json.loads((tied / "config.json").read_text())
    weights = load_file(tied / "model.safetensors")
    weights.pop("lm_head.weight", None)
    save_file(weights, tied / "model.safetensors", metadata={"format": "pt"})
    (tied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    runs = {}
    for processes, launch in ((1, {}), (2, FSDP2)):
        directory = tmp_path / f"run-{processes}"
        write_job(material, directory, processes, model=tied, training=TWENTY, launch=launch)
        runs[processes] = train(directory, processes)
    assert max(abs(a - b) for a, b in zip(curve(runs[1]), curve(runs[2]), strict=True)) < 1e-4
    assert "lm_head.weight" not in load_file(runs[2] / "model" / "model.safetensors")
    code = (
        "import sys, torch; sys.modules['longrecipe_core'] = None\n"
        "from transformers import AutoModelForCausalLM\n"
        "ids = torch.arange(200)[None] % 250\n"
        "for path in sys.argv[1:]:\n"
        "    m = AutoModelForCausalLM.from_pretrained(path)\n"
        "    assert m.get_output_embeddings().weight is m.get_input_embeddings().weight\n"
        "    print(float(m(input_ids=ids, labels=ids).loss))"
    )
    paths = [str(runs[processes] / "model") for processes in (1, 2)]
    result = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=Path("/"))
    assert result.returncode == 0, result.stderr
    one, two = (float(line) for line in result.stdout.split())
    assert abs(one - two) < 1e-4


def test_bf16_is_autocast_over_fp32_shards(material, finished, tmp_path):
    bf16 = {"training": TWENTY | {"precision": "bf16"}}
    exact, one = finished(1, training=TWENTY), finished(1, **bf16)
    directory = train(write_job(material, tmp_path / "run", 2, launch=FSDP2, **bf16), 2)
    assert {tensor.dtype for tensor in load_file(directory / "model" / "model.safetensors").values()} == {
        np.dtype("float32")
    }
    rounding = max(abs(a - b) for a, b in zip(curve(exact), curve(one), strict=True))
    assert 0 < rounding < 0.05
    # Ranks round in another order, and that is all: no more than rounding does.
    assert max(abs(a - b) for a, b in zip(curve(one), curve(directory), strict=True)) < rounding
    assert curve(directory)[0] != curve(exact)[0]


def test_a_rank_that_alone_has_a_bad_loss_ends_the_job_with_its_reason(material, tmp_path):
    directory = write_job(material, tmp_path / "run", 2, training={"learning_rate": 1e30, "clip": 1e30}, launch=FSDP2)
    assert 1 in ended(directory, 2)
    assert any("TrainingError: step" in printed(directory, rank) for rank in (0, 1))
