"""A small Llama from random weights, for the demo and for tests."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from longrecipe_core.modeling.checkpoint import save_model
from longrecipe_core.modeling.completeness import CheckpointSummary, finish_checkpoint
from longrecipe_core.recipe import BaseSection


def make_tiny_config(
    section: BaseSection,
    vocabulary_size: int,
    *,
    bos_token_id: int | None,
    eos_token_id: int | None,
    pad_token_id: int | None,
) -> LlamaConfig:
    """The config of the recipe's own base model; input and output embeddings are tied.

    `vocabulary_size` is the tokenizer's real number of entries, which may be below the one that was asked
    for.
    """
    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=section.hidden_size,
        intermediate_size=section.intermediate_size,
        num_hidden_layers=section.layers,
        num_attention_heads=section.query_heads,
        num_key_value_heads=section.kv_heads,
        max_position_embeddings=section.window,
        rope_parameters={"rope_type": "default", "rope_theta": section.rope_theta},
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        tie_word_embeddings=True,
    )


def make_tiny_model(
    config: LlamaConfig, tokenizer_directory: Path | str, directory: Path | str, *, seed: int
) -> CheckpointSummary:
    """A complete checkpoint with fp32 weights drawn from `seed` and the tokenizer directory's files.

    The caller's random state is left as it was. Raises ModelError where the tokenizer directory holds no
    tokenizer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    save_model(model, directory)
    return finish_checkpoint(directory, tokenizer_directory)
