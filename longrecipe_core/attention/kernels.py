"""Attention of one block of queries to one block of keys, with its log-sum-exp, on one device.

The log-sum-exp is what makes blocks add up: the ring and the balanced schedule merge them by it, and the backward of a
block takes that of the whole row. flash-attn (3, then 2) on CUDA in half precision, torch's memory-efficient kernel on
CUDA otherwise, torch's flash kernel on the CPU. Shapes are flash-attn's: `[batch, sequence, heads, head dim]`.
"""

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch

# What memory-efficient attention pads the log-sum-exp's rows to.
LSE_ALIGNMENT = 32


def block_forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend.

    Args:
        query: `[batch, queries, query heads, head dim]`.
        key: `[batch, keys, kv heads, head dim]`; the kv heads divide the query heads.
        value: As `key`.
        scale: Of the scores before the softmax.
        causal: Query i sees keys 0..i, and there are as many keys as queries; else each query sees all keys.

    Returns:
        Output, as `query`, and log-sum-exp of the scaled scores, fp32 `[batch, query heads, queries]`.
    """
    kernel = _flash_kernel(query)
    if kernel is not None:
        return kernel.forward(query, key, value, scale, causal)
    q, k, v = (part.transpose(1, 2) for part in (query, *_repeated(query, key, value)))
    if query.is_cuda:
        out, lse, _, _ = torch.ops.aten._scaled_dot_product_efficient_attention(
            q, k, v, None, True, 0.0, causal, scale=scale
        )
        lse = lse[..., : query.shape[1]]
    else:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    return out.transpose(1, 2).contiguous(), lse.contiguous()


def block_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    scale: float,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of one block of a row whose whole output and log-sum-exp are `out` and `lse`.

    Args:
        grad: Of the output, as `query`.
        query: As in `block_forward`, and so are `key`, `value`, `scale` and `causal`.
        key: See there.
        value: See there.
        out: The queries' output over *all* their keys.
        lse: Their log-sum-exp over all their keys.
        scale: See there.
        causal: See there.

    Returns:
        Gradients of query, key and value, this block's part of them.
    """
    kernel = _flash_kernel(query)
    if kernel is not None:
        return kernel.backward(grad, query, key, value, out, lse, scale, causal)  # type: ignore[no-any-return]
    q, k, v = (part.transpose(1, 2) for part in (query, *_repeated(query, key, value)))
    grad_, out_ = grad.transpose(1, 2), out.transpose(1, 2)
    if query.is_cuda:
        padding = -lse.shape[-1] % LSE_ALIGNMENT
        padded = torch.nn.functional.pad(lse, (0, padding), value=float("inf"))
        none = torch.zeros((), dtype=torch.int64, device=query.device)  # a state of the random generator: no dropout
        dq, dk, dv, _ = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
            grad_, q, k, v, None, out_, padded, none, none, 0.0, [True, True, True, False], causal, scale=scale
        )
    else:
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad_, q, k, v, out_, lse, 0.0, causal, scale=scale
        )
    dq, dk, dv = (part.transpose(1, 2) for part in (dq, dk, dv))
    return dq.contiguous(), _summed(dk, key), _summed(dv, value)


def _repeated(query: torch.Tensor, *parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
    # These kernels group no heads, or fall back to one with an L x L matrix when asked to.
    groups = query.shape[2] // parts[0].shape[2]
    return parts if groups == 1 else tuple(part.repeat_interleave(groups, dim=2) for part in parts)


def _summed(gradient: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    groups = gradient.shape[2] // of.shape[2]
    return gradient.contiguous() if groups == 1 else gradient.reshape(*of.shape[:3], groups, -1).sum(3)


class _Flash2:
    """flash-attn 2, through yunchang, which knows the calls of its releases."""

    def __init__(self) -> None:
        kernels = importlib.import_module("yunchang.kernels")
        self._forward = kernels.select_flash_attn_impl(kernels.AttnType.FA, stage="fwd-only")
        self._backward = kernels.select_flash_attn_impl(kernels.AttnType.FA, stage="bwd-only")

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = self._forward(q, k, v, 0.0, scale, causal=causal, window_size=(-1, -1), softcap=0.0)
        return out, lse

    def backward(
        self, grad: torch.Tensor, q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float, causal: bool
    ) -> Any:
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        self._backward(
            *(grad.contiguous(), q, k, v, out, lse, dq, dk, dv, 0.0, scale, causal),
            *((-1, -1), 0.0, None, True, None),  # window, softcap, alibi, deterministic, random state
        )
        return dq, dk, dv


class _Flash3:
    """flash-attn 3 by itself: yunchang 0.6.4 hands it causal=False whatever is asked for."""

    def __init__(self) -> None:
        self._library = importlib.import_module("flash_attn_interface")

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse, *_ = self._library._flash_attn_forward(q, k, v, softmax_scale=scale, causal=causal)
        return out, lse

    def backward(
        self, grad: torch.Tensor, q: Any, k: Any, v: Any, out: Any, lse: Any, scale: float, causal: bool
    ) -> Any:
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        self._library._flash_attn_backward(
            *(grad.contiguous(), q, k, v, out, lse),
            **{"dq": dq, "dk": dk, "dv": dv, "softmax_scale": scale, "is_causal": causal, "deterministic": True},
        )
        return dq, dk, dv


def _flash_kernel(query: torch.Tensor) -> _Flash2 | _Flash3 | None:
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16):
        return None
    return _installed(torch.cuda.get_device_capability(query.device)[0] == 9)


@cache
def _installed(hopper: bool) -> _Flash2 | _Flash3 | None:
    if hopper and importlib.util.find_spec("flash_attn_interface"):
        return _Flash3()
    return _Flash2() if importlib.util.find_spec("flash_attn") else None
