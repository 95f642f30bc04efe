"""Real jobs that save memory: the same training, and with LoRA a whole model all the same."""

import pytest
from safetensors.numpy import load_file
from training_material import assert_same_bits, curve, kill_after, train, write_job

from longrecipe_core.training.checkpoint import complete_steps

LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}


@pytest.mark.parametrize(
    "launch",
    [
        {"activation_checkpointing": "selective", "sharding": "fsdp2"},
        {"activation_checkpointing": "offload", "parallel": "ring"},
    ],
    ids=["selective, FSDP2", "offload, ring"],
)
def test_the_curve_is_that_of_a_job_without(material, finished, tmp_path, launch):
    directory = write_job(material, tmp_path / "run", 2, launch={"mlp_tile": 24, **launch})
    train(directory, 2)
    assert max(abs(a - b) for a, b in zip(curve(finished(1)), curve(directory), strict=True)) < 1e-4


def test_lora_killed_and_resumed_in_shards_saves_a_whole_model(material, tmp_path):
    training = {"steps": 30, "lora": LORA}
    launch = {"checkpoint_every": 2, "sharding": "fsdp2", "activation_checkpointing": "selective"}
    alone = train(write_job(material, tmp_path / "alone", 1, training=training), 1)
    whole = train(write_job(material, tmp_path / "whole", 2, training=training, launch=launch), 2)
    assert max(abs(a - b) for a, b in zip(curve(alone), curve(whole), strict=True)) < 1e-4
    assert curve(whole)[-1] < curve(whole)[0] - 0.2  # it does learn

    resumed = write_job(material, tmp_path / "resumed", 2, training=training, launch=launch)
    kill_after(resumed, 2, 9)
    assert complete_steps(resumed / "checkpoints")
    train(resumed, 2)
    assert_same_bits(whole, resumed)
    assert curve(resumed) == curve(whole)

    base = load_file(material / "model" / "model.safetensors")
    weights = load_file(whole / "model" / "model.safetensors")
    assert weights.keys() == base.keys()
    assert all((weights[name] != base[name]).any() for name in base)
    assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in base.items()}
