"""What the training benchmarks train: models of known shapes with random weights, and random tokens."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from longrecipe_core.corpus import TokenWriter
from longrecipe_core.modeling import load_config, make_tiny_config, save_model
from longrecipe_core.recipe import LaunchSection, Recipe, TrainingSection
from longrecipe_core.training.job import DataSpec, TrainingJob

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "artifacts" / "bench"
SEED = 2027


def tiny() -> LlamaConfig:
    """The model that `recipes/tiny-cpu.yaml` trains."""
    recipe = Recipe.load(ROOT / "recipes" / "tiny-cpu.yaml")
    assert recipe.base is not None
    return make_tiny_config(recipe.base, 512, bos_token_id=0, eos_token_id=1, pad_token_id=2)


def smollm2(layers: int = 30) -> LlamaConfig:
    """SmolLM2-135M's shape; its speed does not depend on what the weights are."""
    return LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
    )


def large_vocabulary() -> LlamaConfig:
    """Llama 3's vocabulary on two small layers: nearly all of a step's memory is the loss."""
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=True,
    )


def eight_heads() -> LlamaConfig:
    """Heads that two ranks can share, few parameters: what ranks that share a sequence send each other counts."""
    return LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=True,
    )


def gigabyte() -> LlamaConfig:
    """1.2 GB in bf16."""
    return LlamaConfig(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=12,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
    )


SHAPES = {"tiny": tiny, "smollm2": smollm2, "large-vocabulary": large_vocabulary, "eight-heads": eight_heads}


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory on the disk of the checkout, removed at the end."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="train-") as directory:
        yield Path(directory)


def make_model(config: LlamaConfig, directory: Path, *, dtype: str = "float32", seed: int = SEED) -> Path:
    """Write a model directory without tokenizer; returns it."""
    torch.manual_seed(seed)
    save_model(AutoModelForCausalLM.from_config(config, dtype=torch.float32), directory, dtype=dtype)
    return directory


def make_job(
    directory: Path,
    model: Path,
    *,
    length: int,
    steps: int,
    batch: int = 1,
    precision: str = "fp32",
    **launch: Any,
) -> TrainingJob:
    """A job on random tokens, `batch` samples of `length` a step; its files lie under `directory`."""
    vocabulary = load_config(model).vocab_size
    tokens, rng = directory / "tokens", np.random.default_rng(SEED)
    if not tokens.exists():
        with TokenWriter(tokens, "train") as writer:
            writer.append("random", "random", rng.integers(vocabulary, size=8 * length, dtype=np.int32))
    training = TrainingSection(
        learning_rate=1e-4, schedule="constant", steps=steps, global_batch=batch, precision=precision
    )
    return TrainingJob(
        stage="extend",
        model=model,
        data=DataSpec(kind="windows", tokens=tokens, length=length, samples=steps * batch),
        training=training,
        launch=LaunchSection(**{"micro_batch": batch, "checkpoint_every": steps} | launch),
        seed=SEED,
        checkpoints=directory / "checkpoints",
        output=directory / "trained",
        logs=directory / "logs",
    )
