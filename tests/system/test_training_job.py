"""Real training jobs: really launched, really two and four processes, really killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from longrecipe_core.corpus import TokenShards, TokenWriter, load_tokenizer, train_tokenizer
from longrecipe_core.errors import LaunchError
from longrecipe_core.launching import launch_training
from longrecipe_core.launching.processes import TOKEN_VARIABLE
from longrecipe_core.modeling import make_tiny_config, make_tiny_model
from longrecipe_core.positions.index import build_index
from longrecipe_core.recipe import (
    BaseSection,
    ContextSection,
    LaunchSection,
    PositionsSection,
    RopeSection,
    SelectionSection,
    TrainingSection,
)
from longrecipe_core.selection import token_classes
from longrecipe_core.training.job import DataSpec, TrainingJob
from longrecipe_core.training.metrics import read_metrics

STEPS, BATCH, TRAIN, TARGET, WINDOW = 60, 4, 64, 256, 64


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A tiny model, documents of random sentences and a longrecipe index over them."""
    root = tmp_path_factory.mktemp("material")
    words = np.random.default_rng(0)
    texts = [" ".join(f"word{words.integers(50)} is {words.integers(99)}." for _ in range(120)) for _ in range(12)]
    train_tokenizer(texts, 300, root / "tokenizer", model_max_length=WINDOW)
    tokenizer = load_tokenizer(root / "tokenizer")
    with TokenWriter(root / "tokens", "train") as writer:
        for number, text in enumerate(texts):
            writer.append(f"{number:064x}", "0-text", np.array(tokenizer.encode(text), dtype=np.int32))
    build_index(
        TokenShards(root / "tokens", "train"),
        token_classes(tokenizer),
        root / "index",
        context=ContextSection(target_length=TARGET, train_length=TRAIN),
        selection=SelectionSection(),
        positions=PositionsSection(),
        samples=40,
        seed=1,
    )
    section = BaseSection(
        hidden_size=64, intermediate_size=128, layers=3, query_heads=4, kv_heads=2, window=WINDOW,
        training=TrainingSection(learning_rate=1e-3),
    )  # fmt: skip
    config = make_tiny_config(
        section,
        len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    make_tiny_model(config, root / "tokenizer", root / "model", seed=0)
    return root


def write_job(material, directory, processes, **changes):
    training = {
        "learning_rate": 3e-3, "schedule": "linear", "warmup_steps": 3, "steps": STEPS, "global_batch": BATCH,
        "precision": "fp32", **changes.pop("training", {}),
    }  # fmt: skip
    launch = {"processes": processes, "threads": 1, "checkpoint_every": 7, **changes.pop("launch", {})}
    job = TrainingJob(
        stage="extend",
        model=changes.pop("model", material / "model"),
        rope=RopeSection(),
        window=WINDOW,
        target_length=TARGET,
        data=DataSpec(kind="indexed", tokens=material / "tokens", index=material / "index", length=TRAIN),
        training=TrainingSection(**training),
        launch=LaunchSection(**launch),
        seed=5,
        checkpoints=directory / "checkpoints",
        output=directory / "model",
        logs=directory / "logs",
    )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "job.json").write_text(job.model_dump_json())
    return directory


def run(directory, processes):
    lines = []
    launch_training(directory / "job.json", processes=processes, cuda=False, log=lines.append)
    return lines


@pytest.fixture(scope="module")
def finished(material, tmp_path_factory):
    """Uninterrupted runs by number of ranks, each made once."""
    runs = {}

    def get(processes):
        if processes not in runs:
            runs[processes] = write_job(material, tmp_path_factory.mktemp("whole") / "run", processes)
            run(runs[processes], processes)
        return runs[processes]

    return get


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
    run(directory, 1)
    plain, other = (read_metrics(d / "logs" / "metrics.jsonl") for d in (finished(1), directory))
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(plain, other, strict=True)) < 1e-4


def descendants_of_job(directory):
    """Processes, of whatever parent, that belong to a job of this directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(directory) in " ".join(process.cmdline()) and TOKEN_VARIABLE in process.environ():
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition, what):
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"waited 120 s: {what}")


def start_and_kill(directory, processes, after_step):
    """Start the job from a process of its own, kill -9 that process after a step; the job must go too."""
    code = (
        "from pathlib import Path; from longrecipe_core.launching import launch_training;"
        f"launch_training(Path({str(directory / 'job.json')!r}), processes={processes}, cuda=False, log=print)"
    )
    flow = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    metrics = directory / "logs" / "metrics.jsonl"
    wait_until(lambda: len(read_metrics(metrics)) >= after_step or flow.poll() is not None, "for a step")
    assert flow.poll() is None, "the job ended before it could be killed"
    os.kill(flow.pid, signal.SIGKILL)
    flow.wait()
    wait_until(lambda: not descendants_of_job(directory), f"processes remain: {descendants_of_job(directory)}")
    assert len(read_metrics(metrics)) < STEPS


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_killed_and_resumed_is_bit_identical(material, finished, tmp_path, processes):
    whole = finished(processes)
    directory = write_job(material, tmp_path / "run", processes)
    for after_step in (2, 24):  # before the first checkpoint, and between two of them
        start_and_kill(directory, processes, after_step)
    lines = run(directory, processes)
    assert any("step 0 of" not in line and f"of {STEPS}, {processes} ranks" in line for line in lines)
    expected = load_file(whole / "model" / "model.safetensors")
    actual = load_file(directory / "model" / "model.safetensors")
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert tensor.tobytes() == actual[name].tobytes(), name
    rows = read_metrics(directory / "logs" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == [row["loss"] for row in read_metrics(whole / "logs" / "metrics.jsonl")]


def test_checkpoints_are_pruned_after_the_newer_is_complete(finished):
    names = sorted(path.name for path in (finished(1) / "checkpoints").iterdir())
    assert names == ["step-49", "step-56"]


def test_a_loss_that_is_not_finite_stops_with_step_and_sample(material, tmp_path):
    directory = write_job(material, tmp_path / "run", 2, training={"learning_rate": 1e30, "clip": 1e30})
    with pytest.raises(LaunchError, match=r"TrainingError: step \d+: the .* at samples \[\d+"):
        run(directory, 2)


def test_a_checkpoint_of_another_world_is_refused(finished, tmp_path):
    directory = tmp_path / "run"
    job = json.loads((finished(1) / "job.json").read_text())
    job["launch"]["processes"] = 2
    job["output"] = str(directory / "model")
    directory.mkdir()
    (directory / "job.json").write_text(json.dumps(job))
    with pytest.raises(LaunchError, match="made with world size 1, this run has 2"):
        run(directory, 2)


def test_fewer_ranks_than_asked_for_is_an_error(material, tmp_path):
    directory = write_job(material, tmp_path / "run", 2)
    with pytest.raises(LaunchError, match=r"asks for launch\.processes 2, but 1 were started"):
        run(directory, 1)


def test_bf16_is_autocast_over_fp32_weights(material, finished, tmp_path):
    directory = write_job(material, tmp_path / "run", 1, training={"precision": "bf16"})
    run(directory, 1)
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
