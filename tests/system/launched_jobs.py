"""Tiny training jobs for tests of launching: material, job files, and the processes that belong to them."""

import time

import numpy as np
import psutil
import pytest

from longrecipe_core.corpus import TokenWriter, load_tokenizer, train_tokenizer
from longrecipe_core.launching.processes import TOKEN_VARIABLE
from longrecipe_core.modeling import make_tiny_config, make_tiny_model
from longrecipe_core.recipe import BaseSection, LaunchSection, TrainingSection
from longrecipe_core.training.job import DataSpec, TrainingJob

LENGTH = 32


def make_material(root):
    """A tokenizer, tokens and a model of two small layers under `root`."""
    words = np.random.default_rng(0)
    texts = [" ".join(f"word{words.integers(50)} is {words.integers(99)}." for _ in range(60)) for _ in range(8)]
    train_tokenizer(texts, 300, root / "tokenizer", model_max_length=LENGTH)
    tokenizer = load_tokenizer(root / "tokenizer")
    with TokenWriter(root / "tokens", "train") as writer:
        for number, text in enumerate(texts):
            writer.append(f"{number:064x}", "0-text", np.array(tokenizer.encode(text), dtype=np.int32))
    section = BaseSection(
        hidden_size=32, intermediate_size=64, layers=2, query_heads=2, kv_heads=1, window=LENGTH,
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


def write_job(material, directory, *, steps, learning_rate=3e-3, clip=1.0, **launch):
    """The job's file; `launch` goes over two ranks of one thread each."""
    directory.mkdir(parents=True, exist_ok=True)
    job = TrainingJob(
        stage="base",
        model=material / "model",
        data=DataSpec(kind="windows", tokens=material / "tokens", length=LENGTH, samples=steps * 4),
        training=TrainingSection(
            learning_rate=learning_rate,
            schedule="linear",
            warmup_steps=3,
            steps=steps,
            global_batch=4,
            precision="fp32",
            clip=clip,
        ),  # fmt: skip
        launch=LaunchSection(**{"processes": 2, "threads": 1, "checkpoint_every": 10, **launch}),
        seed=5,
        checkpoints=directory / "checkpoints",
        output=directory / "model",
        logs=directory / "logs",
    )
    path = directory / "job.json"
    path.write_text(job.model_dump_json())
    return path


def processes_of(directory, what=""):
    """Living processes of a job in `directory`, of whatever parent, with `what` in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if str(directory) in line and what in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def ranks_of(directory):
    """The ranks' processes by rank; a single one, which is started without torchrun, is 0."""
    found = {}
    for process in processes_of(directory, "-m longrecipe_core.training"):
        try:
            if process.parent() and "longrecipe_core.launching.agent" in " ".join(process.parent().cmdline()):
                environment = process.environ()
                if TOKEN_VARIABLE in environment:
                    found[int(environment.get("RANK", 0))] = process
        except psutil.Error:
            continue
    return found


def wait_until(condition, what, seconds=120):
    """Poll; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"waited {seconds} s {what}")
