"""Our attention as transformers knows it: one registered function and one mask function, no model is patched."""

import math
from collections.abc import Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from yunchang.comm.all_to_all import SeqAllToAll4D

from longrecipe_core.attention.ops import causal_attention
from longrecipe_core.attention.sequence import SequenceGroup, sequence_group
from longrecipe_core.errors import AttentionError

LOCAL = "longrecipe_local"
HEADS, SEQUENCE = 2, 1  # dimensions of [batch, sequence, heads, head dim], between which the all-to-all goes


def attach(model: Any, parallel: str = "local", group: Any = None, ulysses_degree: int | None = None) -> Any:
    """Make a loaded transformers model use our attention; may be called again with another mode.

    Such a model is for training and scoring whole sequences. With a cache, as in `generate`, it refuses: generate
    through the model's stock attention (`model.set_attn_implementation("sdpa")`).

    In all modes but `local` each rank passes its part of the sequence (`shard_sequence`), position ids and all, and
    gets its part of the output (`gather_sequence`). Labels are shifted before sharding, and the loss is a sum over all
    ranks. Parameters' gradients are each rank's share of the whole: their sum over the group is the gradient.
    Packed samples that must not see each other: pass `sample_starts` (`local`, `ulysses`), for each row of the whole
    sequence, int64 `[samples]`, the first token of each sample, the first 0.

    Args:
        model: A transformers causal LM that takes its attention from `AttentionInterface`.
        parallel: `local`, each rank its own sequences; `ulysses`, heads over ranks (arXiv 2309.14509); `ring`, zigzag
            ring (2310.01889); `usp`, heads × ring (2405.07719); `dist-flash`, balanced blocks (2310.03294).
        group: The ranks that share a sequence; the world when None. Every rank of the world calls, with its own group.
        ulysses_degree: For `usp`, ranks that split heads, 2 when None; the rest is the ring.

    Returns:
        The same model.

    Raises:
        AttentionError: An unknown mode, query heads that can't be split, a model whose attention is not plain causal.
    """
    shared = sequence_group(parallel, group, ulysses_degree)
    config = model.config.get_text_config()
    if not getattr(model, "_supports_attention_backend", False):
        raise AttentionError(f"{type(model).__name__} does not take its attention from transformers' registry")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {
        "full_attention",
        "sliding_attention",
    }
    if kinds or getattr(config, "attention_chunk_size", None):
        raise AttentionError(f"{type(model).__name__} has attention other than causal: {sorted(kinds) or 'chunked'}")
    if config.num_attention_heads % shared.layout.ulysses:
        raise AttentionError(
            f"{shared.layout.ulysses} ranks can't split the {config.num_attention_heads} query heads of "
            f"{type(model).__name__} for {parallel}: use ring, or usp with a ulysses_degree that divides them"
        )
    name = _registered(shared)
    model.set_attn_implementation(name)
    if config._attn_implementation != name:
        raise AttentionError(f"{type(model).__name__} kept its own attention, {config._attn_implementation}")
    _guard(model, parallel)
    return model


@cache
def _registered(shared: SequenceGroup) -> str:
    """The name under which transformers knows a mode over these groups."""
    if shared.layout.degree > 1:
        # Transformers takes a name with "flash" in it for one of its own.
        mode = shared.layout.parallel.replace("dist-flash", "balanced")
        name = f"longrecipe_{mode}_{shared.layout.ulysses}_{shared.group.group_name}"
    else:
        name = LOCAL
    AttentionInterface.register(name, partial(_attention, shared=shared))
    AttentionMaskInterface.register(name, partial(_mask, shared=shared))
    return name


def _guard(model: Any, parallel: str) -> None:
    """Refuse what a model would get wrong without a word where it sees a part of the sequence only."""
    for handle in getattr(model, "_longrecipe_guards", ()):
        handle.remove()
    model._longrecipe_guards = []
    if parallel == "local":
        return

    def whole(module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        if options.get("labels") is not None:
            raise AttentionError(
                f"with parallel {parallel} the model would shift labels within a rank's part: shift them before "
                f"shard_sequence, and take the loss from the logits"
            )

    def part(module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        if options.get("position_ids") is None and len(arguments) < 3:
            raise AttentionError(
                f"with parallel {parallel} the model would count positions from 0 on every rank: pass this rank's "
                f"position_ids, from shard_sequence"
            )

    for module, check in ((model, whole), (model.base_model, part)):
        model._longrecipe_guards.append(module.register_forward_pre_hook(check, with_kwargs=True))


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sample_starts: Sequence[torch.Tensor] | None = None,
    *,
    shared: SequenceGroup,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention signature; honours or refuses everything that can reach it."""
    if attention_mask is not None:
        raise AttentionError("a ready-made attention mask reached LongRecipe's attention, which is causal: pass none")
    if query.shape[2] != key.shape[2]:
        raise AttentionError(
            f"{query.shape[2]} queries against {key.shape[2]} keys: a cache is in use; generate through stock attention"
        )
    window, length = kwargs.get("sliding_window"), key.shape[2] * shared.layout.degree
    if window is not None and window < length:
        raise AttentionError(f"sliding_window {window} is shorter than the sequence of {length} tokens")
    if dropout:
        raise AttentionError(
            f"attention_dropout {dropout} of {type(module).__name__}: our kernels have none; set it to 0"
        )
    for name in ("softcap", "s_aux", "position_bias", "head_mask"):
        if kwargs.get(name) is not None:
            raise AttentionError(f"{type(module).__name__} passes {name}, which our kernels don't compute")
    if not (kwargs.get("is_causal") is not False and getattr(module, "is_causal", True)):
        raise AttentionError(f"{type(module).__name__} is not causal")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (part.transpose(1, 2) for part in (query, key, value))
    return parallel_attention(q, k, v, scale, shared, sample_starts), None


def parallel_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    shared: SequenceGroup,
    sample_starts: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Causal attention over the sequence that a group shares.

    Args:
        query: `[batch, this rank's tokens, query heads, head dim]`.
        key: `[batch, this rank's tokens, kv heads, head dim]`.
        value: As `key`.
        scale: Of the scores before the softmax.
        shared: The mode and its groups.
        sample_starts: As in `attach`.

    Returns:
        As `query`.
    """
    layout = shared.layout
    if sample_starts is not None and layout.ring > 1:
        raise AttentionError(f"packed samples can't be kept apart with {layout.parallel}; allowed: local, ulysses")
    if layout.ulysses == 1:
        return _apart(query, key, value, scale, shared, sample_starts)
    # Heads that the ranks can't split evenly are repeated, no more often than they must be (traps, 9).
    repeats = math.lcm(key.shape[HEADS], layout.ulysses) // key.shape[HEADS]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, HEADS), value.repeat_interleave(repeats, HEADS)
    q, k, v = (SeqAllToAll4D.apply(shared.heads, part, HEADS, SEQUENCE) for part in (query, key, value))
    mixed = _apart(q, k, v, scale, shared, sample_starts)
    return SeqAllToAll4D.apply(shared.heads, mixed, SEQUENCE, HEADS)  # type: ignore[no-any-return]


def _apart(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    shared: SequenceGroup,
    sample_starts: Sequence[torch.Tensor] | None,
) -> torch.Tensor:
    """Attention within each packed sample, or over all where there are none."""
    if sample_starts is None:
        ring = "dist-flash" if shared.layout.parallel == "dist-flash" else "ring"
        return causal_attention(query, key, value, scale, ring if shared.ring else "local", shared.ring)
    rows = []
    for row, first in enumerate(sample_starts):
        edges = [*first.tolist(), query.shape[SEQUENCE]]
        pieces = [
            causal_attention(query[row, None, a:b], key[row, None, a:b], value[row, None, a:b], scale)
            for a, b in pairwise(edges)
        ]
        rows.append(torch.cat(pieces, dim=SEQUENCE))
    return torch.cat(rows)


def _mask(attention_mask: torch.Tensor | None = None, *, shared: SequenceGroup, **kwargs: Any) -> None:
    """No mask: plain causal. In particular none from position ids, whose jumps transformers takes for packing."""
    if attention_mask is None or attention_mask.ndim != 2:
        return
    kept = attention_mask.bool()
    if shared.layout.degree > 1:
        if not bool(kept.all()):
            raise AttentionError(
                f"an attention mask with padding can't be checked in a part of a sequence ({shared.layout.parallel}): "
                f"pad at the end and pass none"
            )
        return
    # Padding on the right is never attended to by a causal model; a hole or padding on the left would be.
    if not bool((kept[:, :-1] | ~kept[:, 1:]).all()):
        raise AttentionError("the attention mask has padding before tokens; this attention pads on the right only")
