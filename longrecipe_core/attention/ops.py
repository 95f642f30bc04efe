"""Causal attention as operators of torch, so that selective checkpointing can know, and keep, their outputs.

Each returns the output and its log-sum-exp, which is all that a backward needs beside the inputs. Shapes as in
`kernels.block_forward`. A process group is told by its name, as torch's own collective operators do.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from longrecipe_core.attention.dist_flash import dist_flash_backward, dist_flash_forward
from longrecipe_core.attention.kernels import block_backward, block_forward
from longrecipe_core.attention.ring import ring_backward, ring_forward


@torch.library.custom_op("longrecipe::causal_attention", mutates_args=())
def causal_attention_op(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole sequences on this rank."""
    return block_forward(query, key, value, scale, True)


@torch.library.custom_op("longrecipe::ring_attention", mutates_args=())
def ring_attention_op(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, group: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences in zigzag order over the ranks of `group`."""
    return ring_forward(query, key, value, scale, _ranks(group))


@torch.library.custom_op("longrecipe::dist_flash_attention", mutates_args=())
def dist_flash_attention_op(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, group: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences in contiguous parts over the ranks of `group`."""
    return dist_flash_forward(query, key, value, scale, _ranks(group))


def causal_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    parallel: str = "local",
    group: dist.ProcessGroup | None = None,
) -> torch.Tensor:
    """Each token attends to itself and all before it.

    Args:
        query: `[batch, sequence, query heads, head dim]`; with a group this rank's part of the sequence.
        key: `[batch, sequence, kv heads, head dim]`; the kv heads divide the query heads.
        value: As `key`.
        scale: Of the scores before the softmax.
        parallel: `local`, `ring` or `dist-flash`.
        group: The ranks that share the sequence.

    Returns:
        As `query`.
    """
    query, key, value = _in_autocast_type(query, key, value)  # of any strides
    out: torch.Tensor
    if parallel == "local" or group is None or dist.get_world_size(group) == 1:
        out, _ = causal_attention_op(query, key, value, scale)
    elif parallel == "ring":
        out, _ = ring_attention_op(query, key, value, scale, group.group_name)
    else:
        out, _ = dist_flash_attention_op(query, key, value, scale, group.group_name)
    return out


def _ranks(name: str) -> dist.ProcessGroup:
    resolve: Any = c10d._resolve_process_group  # type: ignore[attr-defined]
    return resolve(name)  # type: ignore[no-any-return]


def _in_autocast_type(*parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
    # RoPE leaves queries and keys in fp32 under autocast; torch's own attention would round them, a kernel does not.
    kind = parts[0].device.type
    if not torch.is_autocast_enabled(kind):
        return parts
    return tuple(part.to(torch.get_autocast_dtype(kind)) for part in parts)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, ctx.scale, *group = inputs
    ctx.group = group[0] if group else None
    ctx.save_for_backward(query, key, value, *output)
    ctx.set_materialize_grads(False)


def _local_backward(ctx: Any, grad: torch.Tensor, grad_lse: None) -> tuple[Any, ...]:
    query, key, value, out, lse = ctx.saved_tensors
    return (*block_backward(grad, query, key, value, out, lse, ctx.scale, True), None)


def _ring_backward(ctx: Any, grad: torch.Tensor, grad_lse: None) -> tuple[Any, ...]:
    query, key, value, out, lse = ctx.saved_tensors
    group = _ranks(ctx.group)
    return (*ring_backward(grad, query, key, value, out, lse, ctx.scale, group), None, None)


def _dist_flash_backward(ctx: Any, grad: torch.Tensor, grad_lse: None) -> tuple[Any, ...]:
    query, key, value, out, lse = ctx.saved_tensors
    group = _ranks(ctx.group)
    return (*dist_flash_backward(grad, query, key, value, out, lse, ctx.scale, group), None, None)


causal_attention_op.register_autograd(_local_backward, setup_context=_keep)
ring_attention_op.register_autograd(_ring_backward, setup_context=_keep)
dist_flash_attention_op.register_autograd(_dist_flash_backward, setup_context=_keep)

# Overloads of all attention operators, as a checkpointing policy meets them.
ATTENTION_OPS = [
    torch.ops.longrecipe.causal_attention.default,
    torch.ops.longrecipe.ring_attention.default,
    torch.ops.longrecipe.dist_flash_attention.default,
]
