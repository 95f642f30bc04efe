"""Ring attention over a zigzag of the sequence (Liu et al. 2023, arXiv 2310.01889), which gives each rank equal work.

Of `2 W` equal chunks of the sequence rank r of W holds chunks r and 2 W - 1 - r, in this order. Keys and values go
round the ring; each rank attends to what passes, and merges by log-sum-exp. In its own step a rank's queries see its
own keys causally, chunk r being the earlier. What comes from an earlier rank j < r: only its first chunk is earlier
than ours, and is so for both of ours. From a later rank j > r: both its chunks lie between our two, so our second sees
both.
"""

import torch
import torch.distributed as dist
from yunchang.ring.utils import RingComm, update_out_and_lse

from longrecipe_core.attention.kernels import block_backward, block_forward


def ring_forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, group: dist.ProcessGroup
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention of this rank's queries to all ranks' keys; shapes as in `block_forward`, all in zigzag order."""
    ring = RingComm(group)
    half = query.shape[1] // 2
    pair = torch.stack([key, value])  # one message, not two
    out = lse = following = None
    for step in range(ring.world_size):
        if step + 1 < ring.world_size:
            following = ring.send_recv(pair)
            ring.commit()
        k, v = pair
        if step == 0:
            out, lse = update_out_and_lse(out, lse, *block_forward(query, k, v, scale, True))
        elif step <= ring.rank:
            block = block_forward(query, k[:, :half], v[:, :half], scale, False)
            out, lse = update_out_and_lse(out, lse, *block)
        else:
            block = block_forward(query[:, half:], k, v, scale, False)
            out, lse = update_out_and_lse(out, lse, *block, slice_=(slice(None), slice(half, None)))
        if step + 1 < ring.world_size:
            ring.wait()
            assert following is not None
            pair = following
    assert out is not None
    assert lse is not None
    return out.to(query.dtype), lse.squeeze(-1).transpose(1, 2).contiguous()


def ring_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    scale: float,
    group: dist.ProcessGroup,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of this rank's query, key and value; those of keys and values go round behind them, in fp32."""
    ring, gradients = RingComm(group), RingComm(group)
    half = query.shape[1] // 2
    late = (grad[:, half:], query[:, half:])
    late_end = (out[:, half:], lse[:, :, half:].contiguous())
    grad_query = torch.zeros(query.shape, dtype=torch.float32, device=query.device)
    pair = torch.stack([key, value])
    summed = torch.zeros(pair.shape, dtype=torch.float32, device=key.device)  # gradient of `pair`, so far
    arriving = following = None
    for step in range(ring.world_size):
        if step + 1 < ring.world_size:
            following = ring.send_recv(pair)
            ring.commit()
        k, v = pair
        if step == 0:
            dq, dk, dv = block_backward(grad, query, k, v, out, lse, scale, True)
        elif step <= ring.rank:
            dq, dk, dv = block_backward(grad, query, k[:, :half], v[:, :half], out, lse, scale, False)
        else:
            dq, dk, dv = block_backward(*late, k, v, *late_end, scale, False)
        grad_query[:, -dq.shape[1] :] += dq
        if step:
            gradients.wait()  # the sum over the ranks that these keys have passed, from the one before us
            assert arriving is not None
            summed = arriving
        summed[0, :, : dk.shape[1]] += dk
        summed[1, :, : dv.shape[1]] += dv
        if step + 1 < ring.world_size:
            ring.wait()
            assert following is not None
            pair = following
        # After the last step this brings them to the rank that the keys belong to.
        arriving = gradients.send_recv(summed)
        gradients.commit()
    gradients.wait()
    assert arriving is not None
    return grad_query.to(query.dtype), arriving[0].to(key.dtype), arriving[1].to(value.dtype)
