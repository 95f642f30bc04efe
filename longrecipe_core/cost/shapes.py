"""What the cost of a model depends on: its shape, from a config.json or from a table of well-known models."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from longrecipe_core.errors import ModelError
from longrecipe_core.recipe import BaseSection, ModelSection


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder with grouped-query attention, a gated MLP and RMS norms (Llama, Mistral, Qwen2, Qwen3)."""

    layers: int
    hidden: int
    intermediate: int
    query_heads: int
    kv_heads: int
    vocabulary: int
    head_size: int
    tied: bool = False
    qkv_bias: bool = False
    """Biases on queries, keys and values, as in Qwen2."""
    output_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    """Norms on queries and keys, as in Qwen3."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], origin: str) -> Self:
        """From the content of a config.json; a composite model's text part counts.

        Raises:
            ModelError: A key is missing, or the model is a mixture of experts, whose cost is another.
        """
        text = config.get("text_config") or config
        if any(text.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
            raise ModelError(f"{origin}: is a mixture of experts, for which there is no cost model")
        kind = str(text.get("model_type", ""))
        try:
            heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
            return cls(
                layers=int(text["num_hidden_layers"]),
                hidden=hidden,
                intermediate=int(text["intermediate_size"]),
                query_heads=heads,
                kv_heads=int(text.get("num_key_value_heads") or heads),
                vocabulary=int(text["vocab_size"]),
                head_size=int(text.get("head_dim") or hidden // heads),
                tied=bool(text.get("tie_word_embeddings", kind.startswith("gemma"))),
                qkv_bias=kind == "qwen2" or bool(text.get("attention_bias")),
                output_bias=kind != "qwen2" and bool(text.get("attention_bias")),
                mlp_bias=bool(text.get("mlp_bias")),
                head_norms=kind.startswith("qwen3"),
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelError(f"{origin}: the cost can't be told from this config: {error!r}") from error

    @property
    def query_size(self) -> int:
        """Width of the queries, and of attention's output."""
        return self.query_heads * self.head_size

    @property
    def kv_size(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_size

    @property
    def layer_parameters(self) -> int:
        """Of one layer."""
        projections = 2 * self.hidden * (self.query_size + self.kv_size)
        biases = (self.query_size + 2 * self.kv_size) * self.qkv_bias + self.hidden * self.output_bias
        mlp = 3 * self.hidden * self.intermediate + (2 * self.intermediate + self.hidden) * self.mlp_bias
        return projections + biases + mlp + 2 * self.hidden + 2 * self.head_size * self.head_norms

    @property
    def embedding_parameters(self) -> int:
        """Of the look-up table; the head has as many."""
        return self.vocabulary * self.hidden

    @property
    def looked_up_parameters(self) -> int:
        """Parameters that enter no matrix product: a tied table is the head as well, and does."""
        return 0 if self.tied else self.embedding_parameters

    @property
    def parameters(self) -> int:
        """Of the whole model; tied embeddings count once."""
        ends = self.embedding_parameters * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + ends + self.hidden


# By hub id, so that the cost can be told before anything is downloaded.
LLAMA3_8B = ModelShape(32, 4096, 14336, 32, 8, 128256, 128)
QWEN2_7B = ModelShape(28, 3584, 18944, 28, 4, 152064, 128, qkv_bias=True)
MISTRAL_7B_V3 = ModelShape(32, 4096, 14336, 32, 8, 32768, 128)
SMOLLM2_135M = ModelShape(30, 576, 1536, 9, 3, 49152, 64, tied=True)
KNOWN: dict[str, ModelShape] = {
    "meta-llama/Meta-Llama-3-8B": LLAMA3_8B,
    "meta-llama/Meta-Llama-3-8B-Instruct": LLAMA3_8B,
    "meta-llama/Llama-3.1-8B": LLAMA3_8B,
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA3_8B,
    "Qwen/Qwen2-7B": QWEN2_7B,
    "Qwen/Qwen2-7B-Instruct": QWEN2_7B,
    "mistralai/Mistral-7B-v0.3": MISTRAL_7B_V3,
    "mistralai/Mistral-7B-Instruct-v0.3": MISTRAL_7B_V3,
    "HuggingFaceTB/SmolLM2-135M": SMOLLM2_135M,
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2_135M,
}


def shape_of_base(base: BaseSection) -> ModelShape:
    """The small Llama that a recipe trains itself; its tokenizer may come out smaller than asked for."""
    return ModelShape(
        layers=base.layers,
        hidden=base.hidden_size,
        intermediate=base.intermediate_size,
        query_heads=base.query_heads,
        kv_heads=base.kv_heads,
        vocabulary=base.vocabulary_size,
        head_size=base.hidden_size // base.query_heads,
        tied=True,
    )


def shape_of_model(model: ModelSection) -> ModelShape:
    """From the model's directory, the hub's local cache or the table above; nothing is downloaded.

    Raises:
        ModelError: Its config is not at hand, or tells no shape; the message says how to give one.
    """
    directory = Path(model.path).expanduser()
    path = directory / "config.json" if directory.is_dir() else _cached_config(model)
    if path is not None and path.is_file():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: can't be read: {error}") from error
        if not isinstance(config, dict):
            raise ModelError(f"{path}: is no JSON object")
        return ModelShape.from_config(config, str(path))
    if model.path in KNOWN:
        return KNOWN[model.path]
    raise ModelError(
        f"{model.path}: its config.json is not on this machine; `hf download {model.path} config.json`, or a local "
        f"directory as model.path, gives it"
    )


def _cached_config(model: ModelSection) -> Path | None:
    """config.json in the hub's cache, by its documented layout; the hub's client takes a second to import."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repository = cache / f"models--{model.path.replace('/', '--')}"
    revision = model.revision or "main"
    try:
        commit = (repository / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    path = repository / "snapshots" / commit / "config.json"
    return path if path.is_file() else None
