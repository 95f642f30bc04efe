"""Causal attention over a whole sequence on one device: flash-attn on CUDA where it is installed, else torch's SDPA."""

import importlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention


def causal_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    dropout: float = 0.0,
    starts: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Each token attends to itself and all before it in the row, or since the start of its own packed sample.

    Args:
        query: `[batch, query heads, sequence, head dim]`.
        key: `[batch, kv heads, sequence, head dim]`; the kv heads divide the query heads.
        value: As `key`.
        scale: Of the scores before the softmax.
        dropout: Probability.
        starts: Per row, int64 `[samples]`, the first token of each packed sample, the first 0; None: one sample a row.

    Returns:
        `[batch, sequence, query heads, head dim]`, contiguous.
    """
    if query.is_cuda and torch.is_autocast_enabled("cuda"):
        # RoPE leaves queries and keys in fp32 under autocast; SDPA would round them by itself, flash-attn would not.
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    flash = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and _flash_attn() is not None
    attend = _flash if flash else _sdpa
    if starts is None:
        return attend(query, key, value, scale, dropout)
    rows = []
    for row, first in enumerate(starts):
        edges = [*first.tolist(), query.shape[2]]
        pieces = [
            attend(query[row, None, :, a:b], key[row, None, :, a:b], value[row, None, :, a:b], scale, dropout)
            for a, b in pairwise(edges)
        ]
        rows.append(torch.cat(pieces, dim=1))
    return torch.cat(rows)


def _sdpa(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        # SDPA's own grouping falls back to a kernel with an L x L matrix on CPU; repeated heads don't.
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scale)
    return mixed.transpose(1, 2).contiguous()


def _flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float) -> torch.Tensor:
    heads_last = [part.transpose(1, 2) for part in (query, key, value)]
    mixed: torch.Tensor = _flash_attn().flash_attn_func(
        *heads_last, dropout_p=dropout, softmax_scale=scale, causal=True, deterministic=True
    )
    return mixed.contiguous()


@cache
def _flash_attn() -> Any:
    return importlib.import_module("flash_attn") if importlib.util.find_spec("flash_attn") else None
