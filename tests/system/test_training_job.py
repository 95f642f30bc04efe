"""Real training jobs on real processes, one and two of them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from training_material import BATCH, STEPS, TARGET, TRAIN, curve, ended, printed, train, write_job

from longrecipe_core.training.metrics_file import read_metrics


def test_two_ranks_train_the_curve_of_one(finished):
    one, two = (read_metrics(finished(ranks) / "logs" / "metrics.jsonl") for ranks in (1, 2))
    assert [row["step"] for row in one] == list(range(1, STEPS + 1))
    assert one[-1]["loss"] < one[0]["loss"] - 0.5  # it does learn
    assert one[-1]["lr_after"] == 0.0
    for first, second in zip(one, two, strict=True):
        assert abs(first["loss"] - second["loss"]) < 1e-4
        assert first["tokens"] == second["tokens"] == BATCH * TRAIN


def test_activation_checkpointing_and_micro_batches_change_no_loss(material, finished, tmp_path):
    directory = write_job(
        material, tmp_path / "run", 1,
        training={"steps": STEPS},
        launch={"activation_checkpointing": "full", "micro_batch": 2, "loss_chunk": 50},
    )  # fmt: skip
    train(directory, 1)
    assert max(abs(a - b) for a, b in zip(curve(finished(1)), curve(directory), strict=True)) < 1e-4


def test_checkpoints_are_pruned_after_the_newer_is_complete(finished):
    names = sorted(path.name for path in (finished(1) / "checkpoints").iterdir())
    assert names == ["step-56", "step-60"]


def test_a_loss_that_is_not_finite_stops_with_step_and_sample(material, tmp_path):
    directory = write_job(material, tmp_path / "run", 2, training={"learning_rate": 1e30, "clip": 1e30})
    assert 1 in ended(directory, 2)
    pattern = re.compile(r"TrainingError: step \d+: the .* at samples \[\d+")
    assert any(pattern.search(printed(directory, rank)) for rank in (0, 1))


def test_fewer_ranks_than_asked_for_is_an_error(material, tmp_path):
    directory = write_job(material, tmp_path / "run", 2)
    assert ended(directory, 1) == [1]
    assert "TrainingError: the job asks for launch.processes 2, but 1 were started" in printed(directory)


def test_bf16_is_autocast_over_fp32_weights(material, finished, tmp_path):
    directory = write_job(material, tmp_path / "run", 1, training={"precision": "bf16"})
    train(directory, 1)
    weights = load_file(directory / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {np.dtype("float32")}
    exact = read_metrics(finished(1) / "logs" / "metrics.jsonl")
    rounded = read_metrics(directory / "logs" / "metrics.jsonl")
    assert 0 < max(abs(a["loss"] - b["loss"]) for a, b in zip(exact[:10], rounded[:10], strict=True)) < 0.05


def test_the_saved_model_loads_without_our_package(material, finished, tmp_path):
    """Isolated interpreter, our package out of reach: plain transformers, at a length beyond the old window."""
    from longrecipe_core.modeling import finish_checkpoint

    finish_checkpoint(finished(1) / "model", material / "model")
    code = (
        "import sys, torch; sys.modules['longrecipe_core'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"m = AutoModelForCausalLM.from_pretrained({str(finished(1) / 'model')!r})\n"
        f"t = AutoTokenizer.from_pretrained({str(finished(1) / 'model')!r})\n"
        "ids = torch.tensor([t.encode('word1 is 3. ' * 40)[:200]])\n"
        "print(m.config.max_position_embeddings, float(m(input_ids=ids, labels=ids).loss))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path("/"))
    window, loss = result.stdout.split()
    assert int(window) == TARGET
    assert float(loss) < 4
