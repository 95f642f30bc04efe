"""DeepSpeed's ZeRO-3, for those who have it: weights, gradients and optimizer in parts over all ranks.

DeepSpeed is called directly and not through accelerate, whose DeepSpeed on CPUs is DDP without a word. Everything that
stands in its configuration follows from the job; the learning rate is set before each step, as with every optimizer.
"""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from longrecipe_core.errors import TrainingError
from longrecipe_core.training.checkpoint_tensors import Tensors, read
from longrecipe_core.training.job import TrainingJob

MOMENTS = ("exp_avg", "exp_avg_sq")


def zero3_config(job: TrainingJob) -> dict[str, Any]:
    """What DeepSpeed is told; arithmetic as with DDP: fp32 weights and sums, bf16 by autocast."""
    wait: dict[str, Any] = {"device": "cpu" if job.launch.cpu_offload else "none"}
    return {
        "train_micro_batch_size_per_gpu": job.launch.micro_batch,
        # Micro-batches are counted by the step itself, which also divides by the number of target tokens.
        "gradient_accumulation_steps": 1,
        "gradient_clipping": job.training.clip,
        "zero_optimization": {"stage": 3, "offload_param": wait, "offload_optimizer": wait},
        # torch's AdamW, which is the same wherever it runs, and needs no compiler.
        "zero_force_ds_cpu_optimizer": False,
        "torch_autocast": {
            "enabled": job.training.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],  # none whose weights and gradients would travel in bf16
        },
    }


class Zero3(torch.nn.Module):
    """A module under ZeRO-3, called like the module itself, with its optimizer and its state for checkpoints."""

    engine: Any
    model: Any

    def __init__(self, summed_loss: Any, optimizer: torch.optim.Optimizer, job: TrainingJob, device: str) -> None:
        """Put `summed_loss` and its optimizer under DeepSpeed; the process group must stand.

        Raises:
            TrainingError: DeepSpeed is not installed, or left a weight whole.
        """
        super().__init__()
        self._deepspeed = deepspeed = _deepspeed(device)
        engine, self.optimizer, _, _ = deepspeed.initialize(
            model=summed_loss, optimizer=optimizer, config=zero3_config(job)
        )
        # Not a submodule: its parameters have the model's names, not those of this wrapper.
        self.__dict__["engine"] = engine
        self.__dict__["model"] = summed_loss.model
        # The loss applies the head's weight outside of the head's own forward, which DeepSpeed could not foresee.
        deepspeed.zero.register_external_parameter(summed_loss, summed_loss.model.get_output_embeddings().weight)
        whole = [name for name, parameter in self.model.named_parameters() if not hasattr(parameter, "ds_tensor")]
        if whole or engine.zero_optimization_stage() != 3:
            raise TrainingError(f"sharding zero3: not in parts: {', '.join(whole) or 'anything'}")

    def forward(self, *inputs: Any) -> Any:
        """The module's own."""
        return self.engine(*inputs)

    def synchronise(self, last: bool) -> None:
        """Before each micro-batch: whether it is the step's last one."""
        self.engine.set_gradient_accumulation_boundary(last)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the mean over all ranks to the gradients."""
        self.engine.backward(loss)

    def update(self) -> float:
        """Clip, step and forget the gradients; returns their norm before."""
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def part(self, rank: int, ranks: int) -> Tensors:
        """This rank's share of weights and optimizer state, whole tensors in host memory; every rank calls it."""
        access = self._deepspeed.utils
        step = next(iter(self.optimizer.optimizer.state.values()))["step"]
        loads = [0] * ranks
        mine: Tensors = {}
        for name, parameter in self._trained():
            owner = loads.index(min(loads))
            loads[owner] += parameter.ds_numel
            # Gathered one at a time: no rank has room for all.
            tensors = {f"model.{name}": access.safe_get_full_fp32_param(parameter)}
            for key in MOMENTS:
                tensors[f"optimizer.{name}.{key}"] = access.safe_get_full_optimizer_state(parameter, key)
            if owner == rank:
                mine |= {key: tensor.cpu() for key, tensor in tensors.items()}
                mine[f"optimizer.{name}.step"] = torch.tensor(float(step))
        return mine

    def load(self, directory: Path, own: Tensors, group: dist.ProcessGroup | None) -> None:
        """Take weights and optimizer state from a checkpoint, whichever sharding it was written under, and fill `own`.

        Raises:
            TrainingError: A tensor is not there, or has another shape.
        """
        access = self._deepspeed.utils
        read(own, directory, group)
        step = torch.zeros(())
        for flat in self.optimizer.fp32_partitioned_groups_flat:
            self.optimizer.optimizer.state[flat] = {
                "step": step,
                **{key: torch.zeros_like(flat, requires_grad=False) for key in MOMENTS},
            }
        for name, parameter in self._trained():
            keys = (f"model.{name}", *(f"optimizer.{name}.{key}" for key in MOMENTS))
            tensors: Tensors = {key: torch.empty(parameter.ds_shape) for key in keys}
            read(tensors | {f"optimizer.{name}.step": step}, directory, group)
            weight, *moments = (self._my_part(parameter, tensors[key]) for key in keys)
            access.safe_set_local_fp32_param(parameter, weight)
            parameter.ds_tensor.data.copy_(weight)
            for key, moment in zip(MOMENTS, moments, strict=True):
                access.safe_set_local_optimizer_state(parameter, moment, key)
        for state in self.optimizer.optimizer.state.values():
            state["step"] = step.clone()

    def full_weights(self) -> Tensors:
        """All weights of the model whole, by its own names; every rank calls it, and rank 0 gets them."""
        weights = {}
        for name, parameter in self.model.named_parameters():
            with self._deepspeed.zero.GatheredParameters([parameter]):
                if dist.get_rank() == 0:
                    weights[name] = parameter.detach().to("cpu", copy=True)
        return weights

    def _trained(self) -> Iterator[tuple[str, Any]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    @staticmethod
    def _my_part(parameter: Any, whole: torch.Tensor) -> torch.Tensor:
        """The rank's piece of the flat tensor, which DeepSpeed pads to equal pieces."""
        size, rank = parameter.ds_tensor.numel(), dist.get_rank()
        flat = torch.zeros(size * dist.get_world_size())
        flat[: whole.numel()] = whole.flatten()
        return flat[rank * size : (rank + 1) * size]


def _deepspeed(device: str) -> Any:
    if importlib.util.find_spec("deepspeed") is None:
        raise TrainingError("launch.sharding zero3 needs deepspeed: pip install '.[deepspeed]', or choose fsdp2")
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("DS_LOG_LEVEL", "warning")
    warnings.filterwarnings("ignore", message="`torch.distributed.*is deprecated", category=FutureWarning)
    deepspeed: Any = importlib.import_module("deepspeed")
    deepspeed.init_distributed()  # takes the process group that is there
    return deepspeed
