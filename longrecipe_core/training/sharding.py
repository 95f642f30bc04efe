"""How the ranks keep one model: copies whose gradients DDP adds, or shards."""

import torch
from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel

from longrecipe_core.errors import TrainingError
from longrecipe_core.training.job import TrainingJob


def wrap(summed_loss: torch.nn.Module, job: TrainingJob, accelerator: Accelerator) -> torch.nn.Module:
    """The module to call in training; its backward leaves the mean of all ranks' gradients on each.

    Make the optimizer from the parameters as they are after this.

    Raises:
        TrainingError: Gradients would not really be synchronised: accelerate can fall back without a word (traps, 11).
    """
    wrapped: torch.nn.Module = accelerator.prepare(summed_loss)
    if isinstance(wrapped, DistributedDataParallel) != (accelerator.num_processes > 1):
        raise TrainingError(f"{accelerator.num_processes} ranks, but the model is a {type(wrapped).__name__}")
    return wrapped
