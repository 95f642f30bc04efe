"""The tensors of a checkpoint, by names and in files that know nothing of ranks, sharding or parallel mode.

torch's distributed checkpoint plans who writes and who reads what; files are safetensors, one per rank, whose header
says where in the whole tensor each part begins, as `HuggingFaceStorageReader` expects.
"""

import json
import os
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from longrecipe_core.errors import TrainingError

Tensors = dict[str, torch.Tensor]

# A single process is what was asked for (`no_dist`), and no reason to warn at each checkpoint.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


def training_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Weights and optimizer state, the very tensors that training works on, by the model's own names.

    An optimizer that has taken no step yet gets a state. Tied weights are there once, weights that are not trained not
    at all: they are those of the start model.
    """
    parameters = dict(model.named_parameters())
    aliases = dict(model.named_parameters(remove_duplicate=False)).keys() - parameters.keys()
    frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    weights: Any = get_model_state_dict(model)
    tensors: Tensors = {f"model.{name}": weight for name, weight in weights.items() if name not in aliases | frozen}
    state: Any = get_optimizer_state_dict(model, optimizer)["state"]
    for name, values in state.items():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in values.items()}
    return tensors


def my_part(tensors: Tensors, rank: int, ranks: int) -> Tensors:
    """What this rank writes: its shards, and of tensors that all ranks hold alike a share of about equal size.

    A copy in memory is made of that only, so all ranks of a machine together need room for one copy of the state.
    """
    loads = [0] * ranks
    mine: Tensors = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            mine[name] = tensor
            continue
        owner = loads.index(min(loads))  # the same on every rank: names and sizes are
        loads[owner] += tensor.nbytes
        if owner == rank:
            mine[name] = tensor
    return mine


class State(Protocol):
    """Weights and optimizer as a checkpoint needs them; every rank calls both, at the same time."""

    def part(self, rank: int, ranks: int) -> Tensors:
        """What this rank writes."""
        ...

    def load(self, directory: Path, own: Tensors, group: dist.ProcessGroup | None) -> None:
        """Take all of it from a checkpoint, and fill `own`, tensors of this rank only."""
        ...


class ModelState:
    """That of a model which DDP copies or FSDP2 shards, or of one alone."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model, self._optimizer = model, optimizer

    def part(self, rank: int, ranks: int) -> Tensors:
        """See `my_part`; the tensors that training works on."""
        return my_part(training_tensors(self._model, self._optimizer), rank, ranks)

    def load(self, directory: Path, own: Tensors, group: dist.ProcessGroup | None) -> None:
        """In place. Raises TrainingError as `read` does."""
        read(training_tensors(self._model, self._optimizer) | own, directory, group)


def make_stager(device: torch.device) -> DefaultStager:
    """Copies tensors to host memory, into the same buffers each time; `stage` returns when they are there."""
    cuda = device.type == "cuda"
    return DefaultStager(
        StagingOptions(
            use_pinned_memory=cuda, use_non_blocking_copy=cuda, use_shared_memory=False, use_async_staging=False
        )
    )


def write(tensors: Tensors, directory: Path, group: dist.ProcessGroup | None) -> None:
    """Write every rank's tensors, in host memory, to `directory`; every rank calls it.

    When it returns, the bytes of all ranks are on disk. `group` is one that nobody else uses at that time; None for a
    single process.

    Raises:
        TrainingError: On every rank, if any of them could not write.
    """
    try:
        save(tensors, storage_writer=_Writer(directory), process_group=group, no_dist=group is None)
    except CheckpointException as error:
        raise TrainingError(f"{directory} could not be written: {_first_failure(error)}") from error


def read(tensors: Tensors, directory: Path, group: dist.ProcessGroup | None) -> None:
    """Fill `tensors` in place from `directory`, whichever ranks wrote it; every rank calls it.

    Raises:
        TrainingError: A tensor is not there, or has another shape.
    """
    try:
        load(
            tensors,
            storage_reader=HuggingFaceStorageReader(str(directory)),
            process_group=group,
            no_dist=group is None,
        )
    except CheckpointException as error:
        raise TrainingError(f"{directory} can't be read: {_first_failure(error)}") from error


def names_in(directory: Path) -> set[str]:
    """Names of the tensors that a checkpoint holds."""
    return set(HuggingFaceStorageReader(str(directory)).read_metadata().state_dict_metadata)


class _Writer(HuggingFaceStorageWriter):
    """Writes straight from the tensors' memory.

    The library's own turns a whole file into one `bytes` first: twice the memory, and while that is done no other
    thread gets to run Python, so the step in progress would stand still.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory), save_distributed=True)
        self._place = directory

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's file, to the disk itself."""
        tensors, offsets, results = {}, {}, []
        for item in plan.items:
            assert item.tensor_data is not None
            part = planner.resolve_data(item)
            assert isinstance(part, torch.Tensor)
            name = item.index.fqn
            tensors[name] = part.detach().contiguous()
            offsets[name] = {"saved_offsets": list(item.tensor_data.chunk.offsets)}
            results.append(WriteResult(item.index, part.nbytes, None))
        if tensors:
            path = self._place / f"rank-{plan.storage_data['shard_index'] - 1}.safetensors"
            save_file(tensors, path, metadata={"DCP_SHARDING_INFO": json.dumps(offsets), "format": "pt"})
            flush(path)
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future


def flush(path: Path) -> None:
    """Have a file's bytes, or a directory's names, on the disk: a rename may reach it before them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _first_failure(error: CheckpointException) -> str:
    rank, (cause, _) = next(iter(error.failures.items()))
    text = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return f"rank {rank}: {text}"
