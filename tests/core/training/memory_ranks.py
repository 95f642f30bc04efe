"""What each of two ranks does in the tests of memory options: gradients against one process that uses none of them.

Started by `test_memory_ranks.py` with torch's spawn, gloo on loopback.
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from memory_models import LAYERS, OPTIONS, batch, loss_and_gradients, tiny
from torch.distributed.tensor import DTensor

from longrecipe_core.attention import attach, shard_sequence
from longrecipe_core.recipe import LaunchSection, LoraSection, TrainingSection
from longrecipe_core.training.activation_checkpointing import checkpoint_activations
from longrecipe_core.training.checkpoint_tensors import training_tensors
from longrecipe_core.training.job import DataSpec, TrainingJob
from longrecipe_core.training.lora import add_lora, merge_lora
from longrecipe_core.training.loss import SummedLoss
from longrecipe_core.training.sharding import full_weights, wrap
from longrecipe_core.training.tiled_mlp import tile_mlps

WORLD, TILE = 2, 7
MODES = ["ulysses", "ring", "dist-flash"]


def with_options(option, lora=None):
    model = tiny("llama")
    tile_mlps(model, TILE)
    if lora is not None:
        add_lora(model, lora, seed=3, stage="extend")
    checkpoint_activations(model, option)
    return model


def wrapped(model, sharding):
    """As the training loop wraps it."""
    if sharding == "ddp":
        return torch.nn.parallel.DistributedDataParallel(
            SummedLoss(model, 16), find_unused_parameters=True, broadcast_buffers=False
        )
    here = Path()
    job = TrainingJob(
        stage="extend",
        model=here,
        data=DataSpec(kind="packed", tokens=here, length=24),
        training=TrainingSection(learning_rate=1e-3),
        launch=LaunchSection(processes=WORLD, sharding="fsdp2", cpu_offload=sharding == "fsdp2 in host memory"),
        seed=3,
        checkpoints=here,
        output=here,
        logs=here,
    )
    module, _, _ = wrap(SummedLoss(model, 16), job, SimpleNamespace(device=torch.device("cpu"), num_processes=WORLD))
    return module


def worst(gradients, expected):
    if gradients.keys() != expected.keys():
        return f"other names: {gradients.keys() ^ expected.keys()}"
    return max(float((gradients[name] - expected[name]).abs().max()) for name in expected)


def data_parallel(rank, sharding, option):
    """Each rank its own samples, the gradients' mean on all; two micro-batches, of which DDP synchronises the last."""
    expected = [loss_and_gradients(tiny("llama"), *batch(seed=seed))[1] for seed in range(2 * WORLD)]
    model = with_options(option)
    module = wrapped(model, sharding)
    for micro in range(2):
        if sharding == "ddp" and micro == 0:
            with module.no_sync():
                module(*batch(seed=2 * rank)).backward()
            continue
        module(*batch(seed=2 * rank + micro)).backward()
    gradients = {
        name: p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for name, p in model.named_parameters()
    }
    return worst(gradients, {name: sum(e[name] for e in expected) / WORLD for name in expected[0]})


def sequence_parallel(rank, mode, option):
    """Both ranks share each sequence."""
    expected = loss_and_gradients(tiny("llama"))[1]
    model = with_options(option)
    module = SummedLoss(model, 16)
    attach(model, mode)
    module(*(shard_sequence(part, mode) for part in batch())).backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
    return worst({name: p.grad for name, p in model.named_parameters()}, expected)


def messages(rank, mode, option):
    """Per layer, how often this rank exchanges with others in forward, and in all with backward."""
    name = "all_to_all_single" if mode == "ulysses" else "batch_isend_irecv"
    exchange, calls = getattr(dist, name), []
    model = with_options(option)
    module = SummedLoss(model, 16)
    attach(model, mode)
    setattr(dist, name, lambda *args, **options: calls.append(0) or exchange(*args, **options))
    try:
        loss = module(*(shard_sequence(part, mode) for part in batch()))
        forward = len(calls)
        loss.backward()
    finally:
        setattr(dist, name, exchange)
    return forward / LAYERS, len(calls) / LAYERS


def lora_under_fsdp(rank, option):
    """Two steps with LoRA in shards, then the saved weights against those of one process; and the names on the way."""
    lora = LoraSection(rank=2, targets="all-linear")
    alone, model = with_options("none", lora), with_options(option, lora)
    module = wrapped(model, "fsdp2")
    results = []
    for part, summed_loss in ((alone, SummedLoss(alone, 16)), (model, module)):
        trained = [p for p in part.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        for seed in range(2):
            summed_loss(*batch(seed=seed)).backward()
            optimizer.step()
            optimizer.zero_grad()
        names = sorted(training_tensors(part, optimizer))
        results.append((names, full_weights(summed_loss, part)))
    (names, plain), (sharded_names, sharded) = results
    if names != sharded_names or any("module" in name or "wrapped" in name for name in names):
        return f"names in checkpoints: {sharded_names}"
    if rank:
        return 0.0
    return worst(merge_lora(model, sharded), merge_lora(alone, plain))


CASES = {
    **{
        f"{sharding}, {option}": (data_parallel, sharding, option)
        for sharding in ("ddp", "fsdp2", "fsdp2 in host memory")
        for option in OPTIONS
    },
    **{f"{mode}, {option}": (sequence_parallel, mode, option) for mode in MODES for option in OPTIONS},
    **{f"lora, {option}": (lora_under_fsdp, option) for option in OPTIONS},
}
MESSAGES = {
    **{f"{mode}, {option}": (mode, option) for mode in MODES for option in OPTIONS},
}


def rank_main(rank, port, answer):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=WORLD, timeout=timedelta(minutes=10))
    found = {
        "gradients": {name: work(rank, *rest) for name, (work, *rest) in CASES.items()},
        "messages": {name: messages(rank, *rest) for name, rest in MESSAGES.items()},
    }
    Path(f"{answer}.{rank}").write_text(json.dumps(found))
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # freeing DDP and gloo's threads may hang (see training/loop.py), and nothing is left to do
