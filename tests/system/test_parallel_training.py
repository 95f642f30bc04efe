"""Twenty optimizer steps in every way of sharing them among ranks: one loss curve, to 1e-4."""

import pytest
from safetensors.torch import load_file
from training_material import make_material, train, write_job

from longrecipe_core.training.metrics_file import read_metrics

STEPS, LENGTH, BATCH = 20, 61, 4  # no mode divides the length

WAYS = {
    "data parallel": (2, {}),
    "ulysses": (2, {"parallel": "ulysses"}),
    "ring": (2, {"parallel": "ring"}),
    "usp": (2, {"parallel": "usp"}),
    "dist-flash": (2, {"parallel": "dist-flash", "micro_batch": 2}),
    "usp of 2 x 2": (4, {"parallel": "usp"}),
    "usp beside data parallel": (4, {"parallel": "usp", "sequence_degree": 2}),
    "ring beside data parallel": (
        4,
        {"parallel": "ring", "sequence_degree": 2, "micro_batch": 2, "activation_checkpointing": "full"},
    ),
    "dist-flash of 4": (4, {"parallel": "dist-flash"}),
    "ring, sharded": (4, {"parallel": "ring", "sequence_degree": 2, "sharding": "fsdp2"}),
    "ulysses, sharded": (2, {"parallel": "ulysses", "sharding": "fsdp2", "activation_checkpointing": "selective"}),
}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"), train_length=LENGTH)


def run(material, directory, processes, launch):
    write_job(
        material, directory, processes,
        training={"steps": STEPS, "global_batch": BATCH}, launch={"checkpoint_every": 100, **launch}, length=LENGTH,
    )  # fmt: skip
    train(directory, processes)
    return read_metrics(directory / "logs" / "metrics.jsonl"), load_file(directory / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(material, tmp_path_factory):
    return run(material, tmp_path_factory.mktemp("alone") / "run", 1, {})


@pytest.mark.parametrize("way", WAYS)
def test_the_loss_curve_of_one_process(material, alone, tmp_path, way):
    expected, weights = alone
    rows, shared = run(material, tmp_path / "run", *WAYS[way])
    assert [row["step"] for row in rows] == [row["step"] for row in expected] == list(range(1, STEPS + 1))
    assert expected[-1]["loss"] < expected[0]["loss"] - 0.1  # it does learn
    for one, other in zip(expected, rows, strict=True):
        assert abs(one["loss"] - other["loss"]) < 1e-4
        assert other["tokens"] == BATCH * LENGTH
        assert other["target_tokens"] == BATCH * (LENGTH - 1)
    assert shared.keys() == weights.keys()
    # AdamW turns rounding of a gradient near zero into steps of the size of the rate, hence not to rounding.
    assert max(float((shared[name] - weights[name]).abs().max()) for name in weights) < 5e-3
