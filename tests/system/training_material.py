"""Tiny training jobs whose ranks a test starts, signals and kills itself: material, job files, processes."""

import random
from contextlib import contextmanager

import numpy as np
from forked_ranks import fork_rank
from polling import PATIENCE, wait_until
from ports import free_port
from safetensors.numpy import load_file

from longrecipe_core.corpus import TokenShards, TokenWriter, load_tokenizer, train_tokenizer
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
from longrecipe_core.training.metrics_file import read_metrics

STEPS, BATCH, TRAIN, TARGET, WINDOW = 60, 4, 64, 256, 64


def make_material(root, train_length=TRAIN):
    """A tiny model, documents of random sentences and a longrecipe index over them."""
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
        context=ContextSection(target_length=TARGET, train_length=train_length),
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
    """A job's directory with its `job.json`; a second call over the same directory changes how it goes on."""
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
        data=DataSpec(
            kind="indexed", tokens=material / "tokens", index=material / "index", length=changes.pop("length", TRAIN)
        ),
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


# Each loss is scaled by a draw of the rank's generator, so that a run depends on every rank's random state.
NOISY = """
import sys, torch
from longrecipe_core.training.loss import SummedLoss
plain = SummedLoss.forward
SummedLoss.forward = lambda *inputs: plain(*inputs) * (0.5 + torch.rand(()))
from longrecipe_core.training.__main__ import main
sys.exit(main())
"""


@contextmanager
def ranks(directory, processes, code=None):
    """The job's ranks, running; none is left at the end. What they print goes to `rank-R.log`.

    `code` is run in place of `python -m longrecipe_core.training`.
    """
    port = free_port()
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "no"}
    started = []
    try:
        for rank in range(processes):
            if processes > 1:
                environment |= {
                    "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                    "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                }  # fmt: skip
            started.append(fork_rank(directory / "job.json", directory / f"rank-{rank}.log", environment, code))
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()


def printed(directory, rank=0):
    """What a rank printed in its last run."""
    return (directory / f"rank-{rank}.log").read_text()


def ended(directory, processes, code=None):
    """Run the job to its end, good or bad: the ranks' exit codes."""
    with ranks(directory, processes, code) as started:
        for process in started:
            process.join(PATIENCE)
        return [process.exitcode for process in started]


def train(directory, processes, code=None):
    """Run the job to its good end."""
    codes = ended(directory, processes, code)
    assert codes == [0] * processes, "\n".join(printed(directory, rank) for rank in range(processes))
    return directory


def kill_after(directory, processes, step, code=None):
    """Run the job until its metrics tell of `step`, then kill -9 one rank, and soon after the rest, as launchers do."""
    log = directory / "logs" / "metrics.jsonl"
    with ranks(directory, processes, code) as started:
        wait_until(
            lambda: len(read_metrics(log)) >= step or not all(p.is_alive() for p in started),
            "for a step",
            every=0.002,  # the whole job takes a second
        )
        victim = random.Random(step).choice(started)
        assert victim.is_alive(), printed(directory)
        victim.kill()
        victim.join()
    assert not (directory / "model").exists(), "the job ended before it could be killed"


def curve(directory):
    """The loss of each step, of steps that are all there, once and in order."""
    rows = read_metrics(directory / "logs" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def assert_same_bits(one, other):
    """The two jobs' models are the same, bit for bit."""
    expected, actual = (load_file(directory / "model" / "model.safetensors") for directory in (one, other))
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert tensor.tobytes() == actual[name].tobytes(), name


def largest_difference(one, other):
    """Between the weights of two jobs' models."""
    expected, actual = (load_file(directory / "model" / "model.safetensors") for directory in (one, other))
    assert expected.keys() == actual.keys()
    return max(float(np.abs(tensor - actual[name]).max()) for name, tensor in expected.items())
