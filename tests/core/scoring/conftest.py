import os
from pathlib import Path

import numpy as np
import pytest
import torch

from longrecipe_core.corpus import TokenWriter, load_tokenizer, train_tokenizer
from longrecipe_core.modeling import load_model, make_tiny_config, make_tiny_model, save_model
from longrecipe_core.recipe import BaseSection, LaunchSection, ScoreSection, TrainingSection
from longrecipe_core.scoring.job import ScoringJob

# The last is too short for most tests, the one before it is longer than what is read.
LENGTHS = [40, 47, 40, 90, 12]
PADDED = 11  # rows of the head that no entry of the tokenizer has


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("scored-tokenizer")
    train_tokenizer(["He and they were in London with 12 of them. "] * 3, 300, directory, model_max_length=64)
    return directory


@pytest.fixture(scope="session")
def pair(small_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny models of random weights, with padded heads whose spare rows have by far the greatest logits."""
    training = TrainingSection(learning_rate=1e-3, steps=1)
    section = BaseSection(
        hidden_size=16, intermediate_size=24, layers=2, query_heads=2, kv_heads=1, window=48, training=training
    )
    entries = len(load_tokenizer(small_tokenizer))
    config = make_tiny_config(section, entries + PADDED, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    root = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("base", "extended")):
        make_tiny_model(config, small_tokenizer, root / name, seed=seed)
        model = load_model(root / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 1 if parameter.dim() == 1 else 12  # so that attention and logits are no mere noise
            model.get_output_embeddings().weight[entries:] = 100.0 * (seed + 1)
        save_model(model, root / name)
    return root / "base", root / "extended"


@pytest.fixture(scope="session")
def documents(small_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("scored-tokens")
    rng = np.random.default_rng(3)
    with TokenWriter(directory, "train") as writer:
        for number, length in enumerate(LENGTHS):
            # Squares of uniform numbers: low ids occur often, high ones hardly.
            ids = (rng.random(length) ** 2 * len(load_tokenizer(small_tokenizer))).astype(np.int32)
            writer.append(f"{number:064x}", "0-text", ids)
    return directory


@pytest.fixture
def make_job(pair: tuple[Path, Path], documents: Path, tmp_path: Path):
    """A job over the pair, whose output is in a directory of its own."""

    def make(name: str = "scores", **changes) -> ScoringJob:
        source = changes.pop("source", "long-short")
        section = {"source": source, "precision": "fp32"} | changes.pop("score", {})
        launch = {"threads": 1} | changes.pop("launch", {})
        if source == "model":
            changes = {"extended": pair[1]} | changes
            section["model"] = {"path": os.fspath(pair[1])}
        values = {
            "base": pair[0],
            "tokens": documents,
            "length": 40,
            "short_length": 8 if source == "long-short" else None,
            "window": 48,
            "seed": 7,
            "output": tmp_path / name,
            "metrics": tmp_path / f"{name}.json",
        }
        return ScoringJob(score=ScoreSection(**section), launch=LaunchSection(**launch), **(values | changes))

    return make
