"""DistFlashAttn, also LightSeq (Li et al. 2023, arXiv 2310.03294): contiguous parts, balanced by helping.

Rank r holds part r of the sequence. Causally its queries have r + 1 blocks of keys to see, so the last rank would work
W times as long as the first. Instead, in step t a rank p >= t computes its own queries against the keys of rank p - t,
and a rank p < t, which has no such block left, takes over the block (queries of rank W - t + p, its own keys) and sends
the result back (section 3.2 of the paper). So W // 2 + 1 steps do. What the next step needs is sent while the present
one computes (section 3.3).
"""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from yunchang.ring.utils import update_out_and_lse

from longrecipe_core.attention.kernels import block_backward, block_forward


@dataclass(frozen=True)
class Block:
    """Queries of one rank against keys of one rank, both numbers in the group, and the one of the two that computes."""

    query: int
    key: int
    worker: int


def schedule(world: int) -> list[list[Block]]:
    """Blocks by step; each causal pair once, each rank at most one block in a step."""
    steps = [[Block(rank, rank, rank) for rank in range(world)]]
    for t in range(1, world // 2 + 1):
        step = [Block(rank, rank - t, rank) for rank in range(t, world)]
        if 2 * t != world:  # at half the way the owners themselves come to these blocks
            step += [Block(world - t + rank, rank, rank) for rank in range(t)]
        steps.append(step)
    return steps


@dataclass
class _Transfer:
    """Tensors on their way; `tensors` are there after `wait`."""

    works: list[dist.Work]
    tensors: list[torch.Tensor]
    sent: list[torch.Tensor] = field(default_factory=list)  # must live until they are gone

    def wait(self) -> list[torch.Tensor]:
        for work in self.works:
            work.wait()
        return self.tensors


class _Steps:
    """This rank's part of the schedule, and the transfers that go with it.

    All ranks post inputs of step 1, inputs of step 2, results of step 1, inputs of step 3, …: between any two ranks
    sends and receives then meet in the order in which they are posted, also where tags count for nothing (NCCL).
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.rank, world = group, dist.get_rank(group), dist.get_world_size(group)
        self.steps = schedule(world)

    def mine(self, step: int) -> Block | None:
        return next((block for block in self.steps[step] if block.worker == self.rank), None)

    def inputs(self, step: int, of_query: list[torch.Tensor], of_key: list[torch.Tensor]) -> _Transfer:
        """Bring every worker of `step` what it lacks: the other rank's `of_query`, or its `of_key`."""
        moves = []
        for block in self.steps[step] if step < len(self.steps) else []:
            if block.query != block.key:
                helps = block.worker == block.key
                source = block.query if helps else block.key
                moves.append((source, block.worker, of_query if helps else of_key))
        return self._post(moves)

    def results(
        self,
        step: int,
        computed: list[torch.Tensor] | None,
        to_query: list[torch.Tensor],
        to_key: list[torch.Tensor],
    ) -> _Transfer:
        """Bring what helpers computed to the queries' owner, and in backward what owners did to the keys' owner.

        `computed` is what this rank sends; `to_query` and `to_key` give the shapes of what it may receive, and an
        empty list says that there is no such way.
        """
        moves = []
        for block in self.steps[step]:
            if block.query != block.key:
                helps = block.worker == block.key
                target, shapes = (block.query, to_query) if helps else (block.key, to_key)
                if shapes:
                    sends = block.worker == self.rank
                    assert computed is not None or not sends
                    moves.append((block.worker, target, computed if sends and computed is not None else shapes))
        return self._post(moves)

    def _post(self, moves: list[tuple[int, int, list[torch.Tensor]]]) -> _Transfer:
        operations, received, sent = [], [], []
        for source, target, tensors in moves:
            if source == self.rank:
                outgoing = [tensor.contiguous() for tensor in tensors]
                sent += outgoing
                peer = dist.get_global_rank(self.group, target)
                operations += [dist.P2POp(dist.isend, tensor, peer, self.group) for tensor in outgoing]
            elif target == self.rank:
                incoming = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]
                received += incoming
                peer = dist.get_global_rank(self.group, source)
                operations += [dist.P2POp(dist.irecv, tensor, peer, self.group) for tensor in incoming]
        return _Transfer(dist.batch_isend_irecv(operations) if operations else [], received, sent)


def dist_flash_forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, group: dist.ProcessGroup
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention of this rank's queries to all ranks' keys; shapes as in `block_forward`, parts contiguous."""
    steps = _Steps(group)
    own_pair = torch.stack([key, value])
    coming = steps.inputs(1, [query], [own_pair])
    block_out, block_lse = block_forward(query, key, value, scale, True)
    out, lse = update_out_and_lse(None, None, block_out, block_lse)
    returning: _Transfer | None = None
    for step in range(1, len(steps.steps)):
        arrived = coming.wait()
        coming = steps.inputs(step + 1, [query], [own_pair])
        block, computed = steps.mine(step), None
        if block is not None and block.worker == block.key:
            computed = list(block_forward(arrived[0], key, value, scale, False))
        elif block is not None:
            own = block_forward(query, arrived[0][0], arrived[0][1], scale, False)
            out, lse = update_out_and_lse(out, lse, *own)
        if returning is not None and (back := returning.wait()):
            out, lse = update_out_and_lse(out, lse, *back)
        returning = steps.results(step, computed, to_query=[block_out, block_lse], to_key=[])
    coming.wait()
    if returning is not None and (back := returning.wait()):
        out, lse = update_out_and_lse(out, lse, *back)
    return out.to(query.dtype), lse.squeeze(-1).transpose(1, 2).contiguous()


def dist_flash_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    scale: float,
    group: dist.ProcessGroup,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of this rank's query, key and value, by the same schedule; each block is computed where it was."""
    steps = _Steps(group)
    own_pair, own_rows = torch.stack([key, value]), [torch.stack([query, grad, out]), lse]
    coming = steps.inputs(1, own_rows, [own_pair])
    dq, dk, dv = block_backward(grad, query, key, value, out, lse, scale, True)
    grad_query, grad_pair = dq.float(), torch.stack([dk, dv]).float()

    def add(returned: list[torch.Tensor]) -> None:
        # A rank may get both kinds in one step: its queries' from a helper, its keys' from their reader.
        for tensor in returned:
            target = grad_query if tensor.shape == grad_query.shape else grad_pair
            target.add_(tensor)

    returning: _Transfer | None = None
    for step in range(1, len(steps.steps)):
        arrived = coming.wait()
        coming = steps.inputs(step + 1, own_rows, [own_pair])
        block, computed = steps.mine(step), None
        if block is not None and block.worker == block.key:
            (far_query, far_grad, far_out), far_lse = arrived
            dq, dk, dv = block_backward(far_grad, far_query, key, value, far_out, far_lse, scale, False)
            grad_pair += torch.stack([dk, dv])
            computed = [dq]
        elif block is not None:
            dq, dk, dv = block_backward(grad, query, arrived[0][0], arrived[0][1], out, lse, scale, False)
            grad_query += dq
            computed = [torch.stack([dk, dv])]
        if returning is not None:
            add(returning.wait())
        returning = steps.results(step, computed, to_query=[query], to_key=[own_pair])
    coming.wait()
    if returning is not None:
        add(returning.wait())
    return grad_query.to(query.dtype), grad_pair[0].to(key.dtype), grad_pair[1].to(value.dtype)
