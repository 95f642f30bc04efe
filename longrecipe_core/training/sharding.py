"""How the ranks keep one model: copies whose gradients DDP adds, or shards of it (FSDP2, ZeRO-3)."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch._C._distributed_c10d import HashStore
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from longrecipe_core.errors import TrainingError
from longrecipe_core.training.build import make_optimizer
from longrecipe_core.training.checkpoint_tensors import ModelState, State
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.zero3 import Zero3


def wrap(
    summed_loss: Any, job: TrainingJob, accelerator: Accelerator
) -> tuple[torch.nn.Module, torch.optim.Optimizer, State]:
    """The module to call in training, its optimizer, and the state of both for checkpoints.

    Its backward leaves the mean of all ranks' gradients on each, or in its shards.

    Raises:
        TrainingError: Gradients would not really be synchronised: accelerate can fall back without a word (traps, 11).
    """
    model = summed_loss.model
    if job.launch.sharding == "zero3":
        _join_process_group(accelerator.device)
        engine = Zero3(summed_loss, make_optimizer(model, job), job, accelerator.device.type)
        return engine, engine.optimizer, engine
    if job.launch.sharding == "fsdp2":
        wrapped = _fully_shard(summed_loss, job, accelerator)
    else:
        wrapped = accelerator.prepare(summed_loss)
        if isinstance(wrapped, DistributedDataParallel) != (accelerator.num_processes > 1):
            raise TrainingError(f"{accelerator.num_processes} ranks, but the model is a {type(wrapped).__name__}")
    optimizer = make_optimizer(model, job)  # of the parameters as they are now
    return wrapped, optimizer, ModelState(model, optimizer)


def synchronised(wrapped: torch.nn.Module, accelerator: Accelerator, last: bool) -> AbstractContextManager[Any]:
    """Forward and backward in here add to the gradients; DDP synchronises them with the `last` micro-batch only.

    Shards are synchronised with every one: until then each rank would hold the gradients of the whole model.
    """
    if isinstance(wrapped, Zero3):
        wrapped.synchronise(last)
        return nullcontext()
    if isinstance(wrapped, FSDPModule):
        return nullcontext()
    return nullcontext() if last else accelerator.no_sync(wrapped)


def backward(wrapped: torch.nn.Module, accelerator: Accelerator, loss: torch.Tensor) -> None:
    """Add to the gradients of `wrapped`, whose loss it is."""
    if isinstance(wrapped, Zero3):
        wrapped.backward(loss)
    else:
        accelerator.backward(loss)


def update(wrapped: torch.nn.Module, optimizer: torch.optim.Optimizer, largest: float, device: torch.device) -> float:
    """Clip the gradients to the norm `largest`, take the step and forget them; returns what their norm was."""
    if isinstance(wrapped, Zero3):
        return wrapped.update()
    norm = clip_gradients(wrapped, largest, device)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def clip_gradients(wrapped: torch.nn.Module, largest: float, device: torch.device) -> float:
    """Scale the gradients so that their norm, over all shards of all ranks, is at most `largest`; returns what it was.

    Shards may lie in host memory, where the ranks have no group to talk over; so their norms meet on the device.
    """
    if not isinstance(wrapped, FSDPModule):
        return float(torch.nn.utils.clip_grad_norm_(wrapped.parameters(), largest))
    gradients = [p.grad.to_local() for p in wrapped.parameters() if isinstance(p.grad, DTensor)]
    square = torch.nn.utils.get_total_norm(gradients).to(device).square()
    dist.all_reduce(square)
    norm = square.sqrt().item()
    if norm > largest:
        torch._foreach_mul_(gradients, largest / norm)
    return norm


def full_weights(wrapped: torch.nn.Module, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All weights of the model in `wrapped`, whole, by its own names; every rank calls it, and rank 0 gets them."""
    if isinstance(wrapped, Zero3):
        return wrapped.full_weights()
    if not isinstance(wrapped, FSDPModule):
        return model.state_dict()
    weights: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return dict(weights)


def _join_process_group(device: torch.device) -> None:
    if not dist.is_initialized():  # a single rank: no launcher made a group
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)


def _fully_shard(summed_loss: Any, job: TrainingJob, accelerator: Accelerator) -> torch.nn.Module:
    """FSDP2 over all ranks, a group of shards per decoder layer and one for the rest.

    By torch itself, since accelerate's falls back to DDP on CPUs (traps, 11), and one way is to serve both. The rest
    is embedding, last norm and head: `SummedLoss` applies the head's weight on its own, so it must be whole all
    through its forward. Weights and optimizer stay fp32 as with DDP, and arithmetic is autocast.
    """
    device = accelerator.device
    _join_process_group(device)
    mesh = init_device_mesh(device.type, (accelerator.num_processes,))
    offload = CPUOffloadPolicy(pin_memory=device.type == "cuda") if job.launch.cpu_offload else OffloadPolicy()
    kinds = set(summed_loss.model._no_split_modules or ())
    layers = [module for module in summed_loss.modules() if type(module).__name__ in kinds]
    if not layers:
        raise TrainingError(f"sharding fsdp2: {type(summed_loss.model).__name__} does not say which its layers are")
    for module in (*layers, summed_loss):
        fully_shard(module, mesh=mesh, offload_policy=offload)
    whole = [name for name, parameter in summed_loss.named_parameters() if not isinstance(parameter, DTensor)]
    if whole or not all(isinstance(module, FSDPModule) for module in (*layers, summed_loss)):
        raise TrainingError(f"sharding fsdp2: not sharded: {whole or 'a layer'}")
    wrapped: torch.nn.Module = summed_loss
    return wrapped
