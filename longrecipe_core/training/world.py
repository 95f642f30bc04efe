"""The ranks of a training job: threads, determinism, process group, and the check that they are what was asked for."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch.distributed.distributed_c10d import _set_pg_timeout

from longrecipe_core.attention import SequenceGroup, sequence_group
from longrecipe_core.errors import TrainingError
from longrecipe_core.training.job import TrainingJob

WRITING = timedelta(hours=12)


def make_accelerator(job: TrainingJob) -> Accelerator:
    """Set threads, determinism and process group, and assert that the world is as large as asked for (traps, 11)."""
    # The number of threads decides the order of sums on a CPU, so a resumed run must have the same.
    here = job.launch.processes // job.launch.machines
    torch.set_num_threads(job.launch.threads or max(1, (os.cpu_count() or 1) // here))
    torch.use_deterministic_algorithms(True)
    # cuBLAS is deterministic only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # That would also fill each new tensor before it is written: an eighth of a step. Nothing reads what is not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    accelerator = Accelerator(
        mixed_precision="bf16" if job.training.precision == "bf16" else "no",
        kwargs_handlers=[
            # A weight is used once in a forward, so that cached bf16 copies serve nobody; with shards they would keep
            # the whole model in memory that was gathered layer by layer.
            AutocastKwargs(cache_enabled=False),
            # DDP re-sorts its buckets after the first backward unless it looks for unused parameters; from four ranks
            # on, a resumed run would then add in another order than an uninterrupted one (traps, 11).
            DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(seconds=job.launch.collective_timeout)),
        ],
    )
    if accelerator.num_processes != job.launch.processes:
        raise TrainingError(
            f"the job asks for launch.processes {job.launch.processes}, but {accelerator.num_processes} were started"
        )
    return accelerator


def join_sequence_group(job: TrainingJob) -> SequenceGroup:
    """The ranks that this one shares its sequences with: neighbours, which have the fastest links."""
    launch, group = job.launch, None
    timeout = timedelta(seconds=launch.collective_timeout)
    if 1 < launch.sequence_ranks < launch.processes:
        group, _ = dist.new_subgroups(group_size=launch.sequence_ranks, timeout=timeout)  # type: ignore[no-untyped-call]
    shared = sequence_group(launch.parallel, group, launch.ulysses_degree)
    for part in (shared.heads, shared.ring):
        if part is not None:
            _set_pg_timeout(timeout, part)  # those of usp are made by yunchang, which has no argument for it
    return shared


def wait_for_writer() -> None:
    """Wait for rank 0, which comes here when it has written the model.

    Ranks that ended before would be taken for dead. Writing may take longer than any step, so it has a limit of its
    own, and not that of collectives.
    """
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier(group=dist.new_group(backend="gloo", timeout=WRITING))


def emulates_bf16(device: torch.device) -> bool:
    """Whether bf16 products are emulated: measured about 18 times slower than fp32 on a CPU with AVX2 only."""
    return device.type == "cpu" and not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
