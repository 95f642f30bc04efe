"""One rank of `test_checkpoint_tensors.py`: `python sharded_ranks.py DIRECTORY`, under torchrun's variables.

Reads what a single process wrote to `DIRECTORY/alone`, as shards and as copies, and writes its own to `sharded` and
`copied`. Three rows on four ranks: one rank has an empty shard.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from longrecipe_core.training.checkpoint_tensors import make_stager, my_part, read, training_tensors, write


class Tied(torch.nn.Module):
    """Tied weights, a matrix of three rows, a frozen one."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = torch.nn.Embedding(7, 3)
        self.short = torch.nn.Linear(3, 3)
        self.frozen = torch.nn.Linear(3, 2).requires_grad_(False)
        self.head = torch.nn.Linear(3, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.short(self.embedding(ids))).square().sum()


def trained(seed, steps, shard=False):
    model = Tied(seed)
    if shard:
        fully_shard(model.short)
        fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.arange(7)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def whole(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def main(directory):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    group, rank, ranks = dist.new_group(backend="gloo"), dist.get_rank(), dist.get_world_size()
    expected = training_tensors(*trained(seed=0, steps=3))
    for name, shard in (("sharded", True), ("copied", False)):
        tensors = training_tensors(*trained(seed=1, steps=0, shard=shard))
        read(tensors, directory / "alone", group)
        assert tensors.keys() == expected.keys()
        for key, tensor in tensors.items():
            assert torch.equal(whole(tensor), whole(expected[key])), (name, key)
        write(make_stager(torch.device("cpu")).stage(my_part(tensors, rank, ranks)), directory / name, group)
        dist.barrier()
    os._exit(0)  # gloo's threads may abort the process that tears them down, and nothing is left to do


if __name__ == "__main__":
    main(Path(sys.argv[1]))
