"""Our attention as transformers knows it: one registered function and one mask function, no model is patched."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from longrecipe_core.attention.kernels import causal_attention
from longrecipe_core.errors import AttentionError

LOCAL = "longrecipe_local"
PARALLEL_MODES = ("local",)


def attach(model: Any, parallel: str = "local", group: Any = None, ulysses_degree: int | None = None) -> Any:
    """Make a loaded transformers model use our attention; may be called again with another mode.

    Such a model is for training and scoring whole sequences. With a cache, as in `generate`, it refuses: generate
    through the model's stock attention (`model.set_attn_implementation("sdpa")`).
    Packed samples that must not see each other: pass `sample_starts` to the model (see `causal_attention`).

    Args:
        model: A transformers causal LM that takes its attention from `AttentionInterface`.
        parallel: `local`, each rank its own sequences.
        group: The sequence group; has no meaning with `local`.
        ulysses_degree: Has no meaning with `local`.

    Returns:
        The same model.

    Raises:
        AttentionError: An unknown mode, or a model whose attention is not plain causal.
    """
    if parallel not in PARALLEL_MODES:
        raise AttentionError(f"attention mode {parallel!r} is unknown; allowed: {', '.join(PARALLEL_MODES)}")
    config = model.config.get_text_config()
    if not getattr(model, "_supports_attention_backend", False):
        raise AttentionError(f"{type(model).__name__} does not take its attention from transformers' registry")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {
        "full_attention",
        "sliding_attention",
    }
    if kinds or getattr(config, "attention_chunk_size", None):
        raise AttentionError(f"{type(model).__name__} has attention other than causal: {sorted(kinds) or 'chunked'}")
    model.set_attn_implementation(LOCAL)
    if config._attn_implementation != LOCAL:
        raise AttentionError(f"{type(model).__name__} kept its own attention, {config._attn_implementation}")
    return model


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sample_starts: Sequence[torch.Tensor] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention signature; honours or refuses everything that can reach it."""
    if attention_mask is not None:
        raise AttentionError("a ready-made attention mask reached LongRecipe's attention, which is causal: pass none")
    if query.shape[2] != key.shape[2]:
        raise AttentionError(
            f"{query.shape[2]} queries against {key.shape[2]} keys: a cache is in use; generate through stock attention"
        )
    window = kwargs.get("sliding_window")
    if window is not None and window < key.shape[2]:
        raise AttentionError(f"sliding_window {window} is shorter than the sequence of {key.shape[2]} tokens")
    for name in ("softcap", "s_aux", "position_bias", "head_mask"):
        if kwargs.get(name) is not None:
            raise AttentionError(f"{type(module).__name__} passes {name}, which our kernels don't compute")
    if not (kwargs.get("is_causal") is not False and getattr(module, "is_causal", True)):
        raise AttentionError(f"{type(module).__name__} is not causal")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return causal_attention(query, key, value, scale, dropout, sample_starts), None


def _mask(attention_mask: torch.Tensor | None = None, **kwargs: Any) -> None:
    """No mask: plain causal. In particular none from position ids, whose jumps transformers takes for packing."""
    if attention_mask is None or attention_mask.ndim != 2:
        return
    # Padding on the right is never attended to by a causal model; a hole or padding on the left would be.
    kept = attention_mask.bool()
    if not bool((kept[:, :-1] | ~kept[:, 1:]).all()):
        raise AttentionError("the attention mask has padding before tokens; this attention pads on the right only")


AttentionInterface.register(LOCAL, _attention)
AttentionMaskInterface.register(LOCAL, _mask)
