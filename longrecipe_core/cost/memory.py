"""Bytes of one training: on each GPU, in host memory, and on disk.

A count of the tensors that exist at the moment of most, from shapes and types; see docs/cost.md for the formulas.
"""

from dataclasses import dataclass

from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import ModelShape
from longrecipe_core.cost.trained import adapter_parameters, trained_parameters

GB = 1e9
CUDA_CONTEXT = 1.0 * GB
"""What a process holds on a GPU before the first tensor: context, cuBLAS workspaces, NCCL."""
GATHERED_AT_ONCE = 1_000_000_000
"""Parameters that DeepSpeed keeps gathered (`stage3_max_live_parameters`)."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, by what they are for."""

    state: float
    """Weights, gradients, the optimizer's moments, buckets and autocast's copies, as far as they lie on the GPU."""
    saved: float
    """What forward keeps for backward, over all layers."""
    working: float
    """The larger of one layer's backward and the loss."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.state + self.saved + self.working


def gpu_memory(shape: ModelShape, setup: Setup) -> Memory:
    """Tensors on each GPU at the moment of most, in bytes; neither context nor what an allocator keeps in reserve."""
    layer = _layer_bytes(shape, setup)
    kept = setup.local_tokens * setup.weight_width * shape.hidden  # a layer's input
    if setup.checkpointing == "none":
        saved, working = shape.layers * layer, 0.0
    elif setup.checkpointing == "offload":
        saved, working = 2.0 * kept, layer  # one on its way, one in use
    else:
        output = shape.query_size * setup.width + 4 * shape.query_heads  # of attention, with its log-sum-exp
        selective = output * setup.local_tokens if setup.checkpointing == "selective" else 0
        saved, working = shape.layers * float(kept + selective), layer
    # Gradients on their way back: of the residual stream twice, of gate and up in the MLP.
    tokens = setup.local_tokens
    backward = (
        tokens * 2 * setup.weight_width * shape.hidden + _mlp_tokens(setup) * 2 * setup.width * shape.intermediate
    )
    return Memory(_state_bytes(shape, setup), saved, max(working + backward, _loss_bytes(shape, setup)))


def host_memory(shape: ModelShape, setup: Setup) -> float:
    """Tensors in host memory per GPU, in bytes; without the process itself.

    The larger of loading, where each rank reads fp32 weights, and training with what is offloaded. Without offload a
    checkpoint that is being written is a copy here.
    """
    loading = 4.0 * shape.parameters
    state = _sharded_state(shape, setup) / setup.ranks if setup.cpu_offload else 0.0
    copy = (
        0.0 if setup.cpu_offload else checkpoint_bytes(shape, setup) / (1 if setup.sharding == "none" else setup.ranks)
    )
    saved = 0.0
    if setup.checkpointing == "offload":
        saved = float(shape.layers * setup.local_tokens * setup.weight_width * shape.hidden)
    return max(loading, state + copy + saved)


def loading_bytes(shape: ModelShape, setup: Setup) -> float:
    """On each GPU before weights are sharded: all of them in fp32. The paper's runs load in host memory instead."""
    return 0.0 if setup.pure_bf16 else 4.0 * (shape.parameters + adapter_parameters(shape, setup.lora))


def checkpoint_bytes(shape: ModelShape, setup: Setup) -> float:
    """One training checkpoint over all ranks: fp32 weights and two moments; in pure bf16 its weights too."""
    weights = shape.parameters + adapter_parameters(shape, setup.lora)
    trained = trained_parameters(shape, setup.lora)
    return float(2 * weights + 12 * trained if setup.pure_bf16 else 4 * weights + 8 * trained)


def output_bytes(shape: ModelShape) -> float:
    """The finished model, in fp32."""
    return 4.0 * shape.parameters


def _sharded_state(shape: ModelShape, setup: Setup) -> float:
    """fp32 weights, gradients and two moments over all ranks: 16 per parameter, and 2 for pure bf16's weights.

    With its optimizer in host memory DeepSpeed (0.19, stage 3) holds fp32 weights and gradients twice.
    """
    weights = shape.parameters + adapter_parameters(shape, setup.lora)
    trained = trained_parameters(shape, setup.lora)
    if setup.pure_bf16:
        return float(2 * weights + 16 * trained)
    twice = setup.sharding == "zero3" and setup.cpu_offload
    return float(4 * weights + (20 if twice else 12) * trained)


def _state_bytes(shape: ModelShape, setup: Setup) -> float:
    parameters = shape.parameters
    casts = _autocast_bytes(shape, setup)
    if setup.sharding == "none":
        buckets = 4 * trained_parameters(shape, setup.lora) if setup.ranks > 1 else 0  # DDP's
        return _sharded_state(shape, setup) + buckets + casts
    shards = 0.0 if setup.cpu_offload else _sharded_state(shape, setup) / setup.ranks
    ends = parameters - shape.layers * shape.layer_parameters
    if setup.sharding == "fsdp2":
        # Two layers' weights, the one in use and the next, and one layer's whole gradient; embedding, head and last
        # norm are one group, which stays.
        return shards + 12 * shape.layer_parameters + 8 * ends + casts
    return shards + float(setup.weight_width * min(parameters, GATHERED_AT_ONCE)) + casts


def _autocast_bytes(shape: ModelShape, setup: Setup) -> float:
    """bf16 copies of weights: what backward needs of them, which is a layer's where layers are computed again."""
    if setup.precision != "bf16" or setup.pure_bf16:
        return 0.0
    again = setup.checkpointing != "none"
    return 2.0 * (shape.layer_parameters + shape.embedding_parameters if again else shape.parameters)


def _mlp_tokens(setup: Setup) -> int:
    return min(setup.local_tokens, setup.mlp_tile or setup.local_tokens)


def _layer_bytes(shape: ModelShape, setup: Setup) -> float:
    """What one layer keeps for its backward.

    Twice (attention, MLP): the norm's input in fp32, and its result before its weight in the stream's type. The input
    of the projections: once, but for autocast, which casts it for each of them. Queries, attention's output, keys and
    values; gate, up, silu(gate) and the product. Tiles keep their input, and one of them the rest.
    """
    tokens, width, stream = setup.local_tokens, setup.width, setup.weight_width
    casts = width != stream
    norms = 2 * (4 + stream) * shape.hidden
    attention = (3 if casts else 1) * width * shape.hidden
    attention += width * 2 * (shape.query_size + shape.kv_size) + 4 * shape.query_heads
    mlp = (2 if casts else 1) * width * shape.hidden + 4 * width * shape.intermediate
    kept = 0 if setup.mlp_tile is None else tokens * stream * shape.hidden
    return float(tokens * (norms + attention) + kept + _mlp_tokens(setup) * mlp)


def _loss_bytes(shape: ModelShape, setup: Setup) -> float:
    """Logits of a chunk in the head's type, in fp32 and their gradient; hidden states with theirs; the head's gradient.

    `linear_cross_entropy` makes both gradients in its forward (traps, 6), so the head's is held beside the optimizer's.
    """
    tokens = setup.local_tokens
    chunk = min(tokens, setup.loss_chunk or tokens)
    per_logit = setup.logit_bytes if setup.logit_bytes is not None else setup.width + 8
    hidden = tokens * (setup.weight_width + setup.width) * shape.hidden
    return float(chunk * per_logit * shape.vocabulary + hidden + setup.weight_width * shape.embedding_parameters)
