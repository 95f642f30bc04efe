"""Seconds of one training: arithmetic at a share of the peak, or the slower host link, and the network."""

from dataclasses import dataclass

from longrecipe_core.cost.flops import training_flops_per_token
from longrecipe_core.cost.gpus import Gpu
from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import ModelShape
from longrecipe_core.cost.trained import trained_parameters


@dataclass(frozen=True)
class Speed:
    """The constants of the model, fitted in `paper.py`."""

    efficiency: dict[str, float]
    """Share of the peak that is reached, recomputation included, by the GPU's name."""
    network: float
    """Bytes per second that one rank receives from the others, when nothing is hidden behind arithmetic."""


def training_seconds(shape: ModelShape, setup: Setup, gpu: Gpu, speed: Speed, sequences: int) -> float:
    """Seconds of training on so many sequences."""
    compute, network = compute_and_network(shape, setup, gpu, speed, sequences)
    return compute + network / speed.network


def compute_and_network(shape: ModelShape, setup: Setup, gpu: Gpu, speed: Speed, sequences: int) -> tuple[float, float]:
    """Seconds of arithmetic and host link, and bytes that a rank receives from the others."""
    passes = sequences / setup.micro_batch / setup.replicas
    tokens = passes * setup.local_tokens
    peak = gpu.peak(setup.precision) * speed.efficiency[gpu.name]
    arithmetic = tokens * training_flops_per_token(shape, setup) / peak
    seconds = max(arithmetic, passes * host_bytes_per_pass(shape, setup) / gpu.host_link)
    steps = passes / setup.micro_batches
    return seconds, passes * network_bytes_per_pass(shape, setup) + steps * network_bytes_per_step(shape, setup)


def host_bytes_per_pass(shape: ModelShape, setup: Setup) -> float:
    """Bytes over one GPU's host link, forward and backward of one micro-batch, the busier direction.

    That is the way to the GPU: a rank reads its shards of the weights in forward and again in backward, and what went
    to the host in forward comes back; gradients go the other way, once.
    """
    weights = 2.0 * setup.weight_width * shape.parameters / setup.ranks if setup.cpu_offload else 0.0
    saved = shape.layers * setup.local_tokens * setup.weight_width * shape.hidden
    return weights + (saved if setup.checkpointing == "offload" else 0.0)


def network_bytes_per_pass(shape: ModelShape, setup: Setup) -> float:
    """Bytes that a rank receives from the others, forward and backward of one micro-batch."""
    received = 0.0
    others = (setup.ranks - 1) / setup.ranks
    if setup.sharding != "none":  # weights for forward, and for backward
        received += 2 * setup.weight_width * shape.parameters * others
        # Each micro-batch's gradients are reduced to shards.
        received += setup.weight_width * trained_parameters(shape, setup.lora) * others
    if setup.sequence_ranks > 1:
        received += shape.layers * _attention_bytes(shape, setup)
    return received


def network_bytes_per_step(shape: ModelShape, setup: Setup) -> float:
    """Bytes that a rank receives once per optimizer step: DDP's fp32 gradients, added up and spread."""
    times = 2 if setup.sharding == "none" else 0
    return times * 4.0 * trained_parameters(shape, setup.lora) * (setup.ranks - 1) / setup.ranks


def _attention_bytes(shape: ModelShape, setup: Setup) -> float:
    """Per layer. Heads: four exchanges of the local tokens. Ring: keys and values of all other ranks.

    Once in forward; backward moves as much for heads, and keys, values and both gradients for the ring. Where layers
    are computed again, heads are exchanged again: that stands outside of the operators whose outputs `selective` saves,
    the ring's exchange inside.
    """
    heads = setup.head_ranks
    ring = setup.sequence_ranks // heads
    heads_again = setup.checkpointing != "none"
    ring_again = setup.checkpointing in ("full", "offload")
    exchanged = setup.local_tokens * 2 * (shape.query_size + shape.kv_size) * setup.width * (heads - 1) / heads
    # With heads split, a rank of the ring holds its heads of the ring part's tokens: as many numbers as before.
    circulated = (ring - 1) * setup.local_tokens * 2 * shape.kv_size * setup.width
    return exchanged * (2 + heads_again) + circulated * (3 + ring_again)
