"""Seconds of one training: arithmetic at a share of the peak, or the slower host link, and the network."""

from dataclasses import dataclass

from longrecipe_core.cost.flops import training_flops_per_token
from longrecipe_core.cost.gpus import Gpu
from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import ModelShape


@dataclass(frozen=True)
class Speed:
    """The constants of the model, fitted in `paper.py`."""

    efficiency: dict[str, float]
    """Share of the peak that is reached, recomputation included, by the GPU's name."""
    network: float
    """Bytes per second that one rank receives from the others, when nothing is hidden behind arithmetic."""


def training_seconds(
    shape: ModelShape, setup: Setup, gpu: Gpu, speed: Speed, *, sequences: int, global_batch: int
) -> float:
    """Seconds of training on `sequences`, of which `global_batch` make an optimizer step."""
    compute, network = compute_and_network(shape, setup, gpu, speed, sequences=sequences, global_batch=global_batch)
    return compute + network / speed.network


def compute_and_network(
    shape: ModelShape, setup: Setup, gpu: Gpu, speed: Speed, *, sequences: int, global_batch: int
) -> tuple[float, float]:
    """Seconds of arithmetic and host link, and bytes that a rank receives from the others."""
    passes = sequences / setup.micro_batch / setup.replicas
    tokens = passes * setup.local_tokens
    peak = gpu.peak(setup.precision) * speed.efficiency[gpu.name]
    arithmetic = tokens * training_flops_per_token(shape, setup) / peak
    seconds = max(arithmetic, passes * host_bytes_per_pass(shape, setup) / gpu.host_link)
    network = passes * network_bytes_per_pass(shape, setup)
    if setup.sharding == "none" and setup.ranks > 1:  # DDP adds fp32 gradients once per optimizer step
        network += sequences / global_batch * 2 * 4 * shape.parameters * (setup.ranks - 1) / setup.ranks
    return seconds, network


def host_bytes_per_pass(shape: ModelShape, setup: Setup) -> float:
    """Bytes over one GPU's host link, forward and backward of one micro-batch, the busier direction.

    A rank reads its shards of the weights in forward and again in backward, and writes its part of the gradient.
    """
    down = up = 0.0
    if setup.cpu_offload:
        down = 2.0 * setup.weight_width * shape.parameters / setup.ranks
        up = float(setup.weight_width * shape.parameters / setup.ranks)
    if setup.checkpointing == "offload":
        saved = float(shape.layers * setup.local_tokens * setup.weight_width * shape.hidden)
        down, up = down + saved, up + saved
    return max(down, up)


def network_bytes_per_pass(shape: ModelShape, setup: Setup) -> float:
    """Bytes that a rank receives from the others, forward and backward of one micro-batch."""
    received = 0.0
    if setup.sharding != "none":  # two gathers of the weights, and a reduction of the gradients
        received += 3.0 * setup.weight_width * shape.parameters * (setup.ranks - 1) / setup.ranks
    if setup.sequence_ranks > 1:
        received += shape.layers * _attention_bytes(shape, setup)
    return received


def _attention_bytes(shape: ModelShape, setup: Setup) -> float:
    """Per layer. Heads: four exchanges of the local tokens. Ring: keys and values of all other ranks.

    Once in forward, once more where attention is computed again; backward moves as much for heads, and keys, values and
    both gradients for the ring.
    """
    heads = setup.head_ranks
    ring = setup.sequence_ranks // heads
    again = setup.checkpointing in ("full", "offload")
    exchanged = setup.local_tokens * 2 * (shape.query_size + shape.kv_size) * setup.width * (heads - 1) / heads
    # With heads split, a rank of the ring holds its heads of the ring part's tokens: as many numbers as before.
    circulated = (ring - 1) * setup.local_tokens * 2 * shape.kv_size * setup.width
    return exchanged * (2 + again) + circulated * (3 + again)
