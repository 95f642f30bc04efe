"""How the ranks of a group share a sequence: which tokens are whose in each mode, and the way there and back."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from yunchang.globals import PROCESS_GROUP, set_seq_parallel_pg

from longrecipe_core.errors import AttentionError

PARALLEL_MODES = ("local", "ulysses", "ring", "usp", "dist-flash")
ULYSSES_DEGREE = 2


@dataclass(frozen=True)
class SequenceLayout:
    """A mode over `degree` ranks; rank r is number `r % ulysses` among those that split heads, and `r // ulysses` in
    its ring (yunchang's order, which keeps the all-to-all between neighbours)."""

    parallel: str
    degree: int
    ulysses: int

    @property
    def ring(self) -> int:
        """Ranks of a ring."""
        return self.degree // self.ulysses

    @property
    def multiple(self) -> int:
        """Sequences must be padded to a multiple of this many tokens."""
        return 2 * self.degree if self.parallel in ("ring", "usp") else self.degree

    def tokens(self, length: int, rank: int) -> torch.Tensor:
        """Which tokens of a sequence rank `rank` of the group holds, in its order: int64 `[length / degree]`.

        Raises:
            AttentionError: The length can't be shared evenly.
        """
        if length % self.multiple:
            raise AttentionError(
                f"a sequence of {length} tokens can't be shared by {self.degree} ranks with {self.parallel}: pad it to "
                f"a multiple of {self.multiple}"
            )
        whole = torch.arange(length)
        if self.parallel in ("ring", "usp"):
            chunks = whole.chunk(2 * self.ring)
            place = rank // self.ulysses
            zigzag = torch.cat([chunks[place], chunks[2 * self.ring - 1 - place]])
            return zigzag.chunk(self.ulysses)[rank % self.ulysses]
        return whole.chunk(self.degree)[rank]


WHOLE = SequenceLayout("local", 1, 1)


@dataclass(frozen=True)
class SequenceGroup:
    """A layout with the process groups that it runs over."""

    layout: SequenceLayout
    group: Any
    heads: Any
    """Ranks that split heads; None where none do."""
    ring: Any
    """Ranks of a ring, or of the balanced schedule; None where there is none."""


def sequence_group(parallel: str, group: Any = None, ulysses_degree: int | None = None) -> SequenceGroup:
    """The groups of a mode; the same for the same arguments. Every rank of the world calls it, with its own group.

    Raises:
        AttentionError: An unknown mode, no process group to share a sequence in, or a degree that doesn't divide it.
    """
    if parallel not in PARALLEL_MODES:
        raise AttentionError(f"attention mode {parallel!r} is unknown; allowed: {', '.join(PARALLEL_MODES)}")
    if parallel == "local":
        return SequenceGroup(WHOLE, None, None, None)
    if not dist.is_initialized():
        raise AttentionError(f"attention mode {parallel} shares sequences among ranks: start a process group first")
    group = dist.group.WORLD if group is None else group
    degree = dist.get_world_size(group)
    ulysses = {"ulysses": degree, "usp": ulysses_degree or ULYSSES_DEGREE}.get(parallel, 1)
    if degree % ulysses:
        raise AttentionError(f"ulysses_degree {ulysses} does not divide the {degree} ranks that share a sequence")
    heads, ring = _groups(group, ulysses)
    return SequenceGroup(SequenceLayout(parallel, degree, ulysses), group, heads, ring)


@cache
def _groups(group: Any, ulysses: int) -> tuple[Any, Any]:
    degree = dist.get_world_size(group)
    if ulysses == 1:
        return None, group
    if ulysses == degree:
        return group, None
    if group is dist.group.WORLD:
        set_seq_parallel_pg(ulysses, degree // ulysses, dist.get_rank(), degree)
        return PROCESS_GROUP.ULYSSES_PG, PROCESS_GROUP.RING_PG
    # yunchang makes the groups of all sequence groups at once, from consecutive ranks; a group may be any, so only its
    # own members meet here.
    ranks = dist.get_process_group_ranks(group)
    rank = dist.get_rank(group)
    heads = ring = None
    for first in range(0, degree, ulysses):
        if first <= rank < first + ulysses:
            heads = dist.new_group(ranks[first : first + ulysses], use_local_synchronization=True)
    for first in range(ulysses):
        if rank % ulysses == first:
            ring = dist.new_group(ranks[first::ulysses], use_local_synchronization=True)
    return heads, ring


def pad_sequence(tensor: torch.Tensor, multiple: int, value: int = 0, dim: int = 1) -> torch.Tensor:
    """`tensor` with `value` appended along `dim` up to a multiple; causal attention never looks at what is behind."""
    missing = -tensor.shape[dim] % multiple
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor, tensor.new_full(shape, value)], dim)


def shard_sequence(
    tensor: torch.Tensor, parallel: str, group: Any = None, dim: int = 1, ulysses_degree: int | None = None
) -> torch.Tensor:
    """This rank's part of a padded tensor, along `dim`, in the mode's order. Shift labels before, not after.

    Args:
        tensor: `[batch, sequence, ...]`, the same on every rank of the group.
        parallel: As in `attach`, and so are `group` and `ulysses_degree`.
        group: See there.
        dim: The sequence's dimension.
        ulysses_degree: See there.

    Returns:
        The part, of `sequence / ranks` tokens; the tensor itself with `local`.

    Raises:
        AttentionError: The length is not a multiple of what the mode needs; the message has it.
    """
    shared = sequence_group(parallel, group, ulysses_degree)
    if shared.layout.degree == 1:
        return tensor
    mine = shared.layout.tokens(tensor.shape[dim], dist.get_rank(shared.group))
    return tensor.index_select(dim, mine.to(tensor.device))


def gather_sequence(
    tensor: torch.Tensor, parallel: str, group: Any = None, dim: int = 1, ulysses_degree: int | None = None
) -> torch.Tensor:
    """The whole sequence again, on every rank, from all ranks' parts; arguments as in `shard_sequence`.

    Its gradient is this rank's part of the gradient of the whole: where every rank computes the same loss from the
    whole, the sum of the ranks' parameter gradients is the gradient of that one loss.
    """
    return gather_parts(tensor, sequence_group(parallel, group, ulysses_degree), dim)


def gather_parts(tensor: torch.Tensor, shared: SequenceGroup, dim: int = 1) -> torch.Tensor:
    """As `gather_sequence`, over groups at hand."""
    if shared.layout.degree == 1:
        return tensor
    return _Gather.apply(tensor, shared, dim)  # type: ignore[no-any-return, no-untyped-call]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, shared: SequenceGroup, dim: int) -> torch.Tensor:
        layout, rank = shared.layout, dist.get_rank(shared.group)
        length = tensor.shape[dim] * layout.degree
        order = [layout.tokens(length, other) for other in range(layout.degree)]
        ctx.mine, ctx.dim = order[rank].to(tensor.device), dim
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in order]
        dist.all_gather(parts, tensor.contiguous(), group=shared.group)
        return torch.cat(parts, dim).index_select(dim, torch.cat(order).argsort().to(tensor.device))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grads[0].index_select(ctx.dim, ctx.mine), None, None
