"""Bytes against those of real tensors: weights, gradients, moments, and what autograd saves."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from longrecipe_core.attention import attach
from longrecipe_core.cost.memory import CUDA_CONTEXT, checkpoint_bytes, gpu_memory, host_memory, output_bytes
from longrecipe_core.cost.paper import FITTED
from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import LLAMA3_8B, ModelShape
from longrecipe_core.cost.trained import adapter_parameters, trained_parameters
from longrecipe_core.cost.trainings import gpu_bytes
from longrecipe_core.recipe import LaunchSection, LoraSection, TrainingSection
from longrecipe_core.training.activation_checkpointing import checkpoint_activations
from longrecipe_core.training.lora import add_lora
from longrecipe_core.training.loss import SummedLoss
from longrecipe_core.training.tiled_mlp import tile_mlps

LENGTH = 256
SIZES = {
    "num_hidden_layers": 6,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 128,
}


def make() -> tuple[torch.nn.Module, ModelShape]:
    config = AutoConfig.for_model("llama", **SIZES, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model, ModelShape.from_config(config.to_dict(), "test")


def nbytes(tensors) -> int:
    """Of distinct storages."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def saved_bytes(checkpointing: str, tile: int | None, precision: str) -> int:
    """What one forward of the training loss leaves for backward, weights aside.

    The graph's hooks see what checkpointing keeps as well, but for inputs of a checkpoint, which it holds itself.
    """
    model, _ = make()
    tile_mlps(attach(model).train(), tile)
    checkpoint_activations(model, checkpointing)
    held: list[torch.Tensor] = []
    for layer in model.model.layers if checkpointing != "none" else []:
        layer.register_forward_pre_hook(lambda _, inputs: held.append(inputs[0].detach()))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            held.append(tensor.detach())
        return tensor

    ids = torch.arange(LENGTH)[None] % 128
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    # Of the decoder alone: the loss holds a chunk's logits, and is no part of `saved`.
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        model.model(input_ids=ids, position_ids=ids, use_cache=False)
    return nbytes(held)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tile", [None, 64])
def test_what_forward_keeps_is_what_autograd_saves(precision, tile):
    _, shape = make()
    setup = Setup(LENGTH, precision=precision, mlp_tile=tile)
    told = gpu_memory(shape, setup).saved
    if tile is not None:
        told -= (
            shape.layers * tile * setup.width * (4 * 192 + (2 if precision == "bf16" else 1) * 64)
        )  # in backward only
    cast = shape.layer_parameters - (3 * 64 * 192 if tile is not None else 0)  # a tile casts its weights for itself
    casts = 2 * shape.layers * cast if precision == "bf16" else 0  # autocast's copies, which are counted as state
    # On a CPU attention's output is saved a second time, transposed, which the kernels of GPUs don't need.
    assert told == pytest.approx(saved_bytes("none", tile, precision) - casts, rel=0.06)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_full_checkpointing_keeps_the_layers_inputs(precision):
    _, shape = make()
    told = gpu_memory(shape, Setup(LENGTH, precision=precision, checkpointing="full")).saved
    assert told == shape.layers * LENGTH * 64 * 4
    measured = saved_bytes("full", None, precision)
    assert told == pytest.approx(
        measured, rel=0.3
    )  # the last norm's, embeddings' indices and rotary tables beside them
    assert measured > told


def test_the_state_is_that_of_adamw():
    model, shape = make()
    loss = SummedLoss(attach(model).train(), 512)
    optimizer = torch.optim.AdamW(loss.parameters())
    ids = torch.arange(8)[None]
    loss(ids, ids, ids).backward()
    gradients = nbytes(parameter.grad for parameter in model.parameters())
    optimizer.step()
    weights = nbytes(model.parameters())
    moments = sum(nbytes([s["exp_avg"], s["exp_avg_sq"]]) for s in optimizer.state.values())
    assert gpu_memory(shape, Setup(8, precision="fp32")).state == weights + gradients + moments
    assert checkpoint_bytes(shape, Setup(8)) == weights + moments
    assert output_bytes(shape) == weights


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize("ends", [True, False])
def test_lora_trains_as_many_parameters_as_are_told(targets, ends):
    model, shape = make()
    lora = LoraSection(rank=4, targets=targets, train_embeddings_and_norms=ends)
    add_lora(model, lora, seed=1, stage="extend")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained_parameters(shape, lora) == trained
    assert adapter_parameters(shape, lora) == sum(p.numel() for p in model.parameters()) - shape.parameters
    state = gpu_memory(shape, Setup(8, precision="fp32", lora=lora)).state
    assert state == 4 * sum(p.numel() for p in model.parameters()) + 12 * trained


def test_shards_and_offload_leave_a_gpu_less():
    """Of 8.03e9 parameters, by hand: 16 bytes each, over four ranks."""
    parameters = LLAMA3_8B.parameters
    base = Setup(24_000, ranks=4, checkpointing="full")
    alone = gpu_memory(LLAMA3_8B, replace(base, ranks=1))
    # fp32 weights, gradients, moments; autocast's bf16 copies of a layer of 218 M and of the head of 525 M
    assert alone.state == pytest.approx(16 * parameters + 2 * (218e6 + 525e6), rel=0.01)
    assert gpu_memory(LLAMA3_8B, base).state - alone.state == 4 * parameters  # DDP's buckets
    kept = gpu_memory(LLAMA3_8B, replace(base, ranks=1, checkpointing="none")).state
    assert kept == 18 * parameters
    sharded = gpu_memory(LLAMA3_8B, replace(base, sharding="fsdp2"))
    offloaded = gpu_memory(LLAMA3_8B, replace(base, sharding="fsdp2", cpu_offload=True))
    assert sharded.state - offloaded.state == 4 * parameters
    # By hand: two layers of 218 M and a gradient; embedding, head and norm of 1.05e9, with theirs; autocast's copies.
    assert offloaded.state == pytest.approx(12 * 218e6 + 8 * 1.05e9 + 2 * (218e6 + 525e6), rel=0.01)
    summed = gpu_memory(LLAMA3_8B, replace(base, sharding="fsdp2", micro_batches=2))
    assert summed.state == sharded.state  # gradients become shards with every micro-batch
    zero3 = replace(base, sharding="zero3", cpu_offload=True)
    # A billion gathered fp32 weights, and autocast's copies.
    assert gpu_memory(LLAMA3_8B, zero3).state == pytest.approx(4e9 + 2 * (218e6 + 525e6), rel=0.01)
    held = replace(zero3, cpu_offload=False)
    assert gpu_memory(LLAMA3_8B, held).state - gpu_memory(LLAMA3_8B, zero3).state == 4 * parameters
    assert checkpoint_bytes(LLAMA3_8B, held) == 12 * parameters
    # Weights and gradients are there twice: as the model's shards and as the optimizer's.
    one = replace(zero3, ranks=1)
    assert host_memory(LLAMA3_8B, one) == 24 * parameters
    paper = replace(one, pure_bf16=True)  # bf16 weights, and 16 bytes as ever
    assert gpu_memory(LLAMA3_8B, paper).state == 2e9
    assert host_memory(LLAMA3_8B, paper) == 18 * parameters
    assert checkpoint_bytes(LLAMA3_8B, paper) == 14 * parameters
    # Of eight ranks each holds two bytes per parameter, and has read all of the weights before.
    assert host_memory(LLAMA3_8B, replace(base, sharding="fsdp2", cpu_offload=True, ranks=8)) == 4 * parameters
    assert host_memory(LLAMA3_8B, replace(base, ranks=1)) == 12 * parameters  # a checkpoint on its way to disk
    away = replace(base, checkpointing="offload", sharding="fsdp2", cpu_offload=True, ranks=1)
    assert host_memory(LLAMA3_8B, away) == 16 * parameters + 32 * 24_000 * 4096 * 4
    assert gpu_memory(LLAMA3_8B, away).saved == 2 * 24_000 * 4096 * 4


def test_every_gpu_has_room_for_the_model_that_is_loaded():
    """In fp32, whole and with its updates, before FSDP2 makes shards of it."""
    sharded = Setup(128, ranks=64, sharding="fsdp2", checkpointing="full")
    weights = 4 * LLAMA3_8B.parameters
    assert gpu_memory(LLAMA3_8B, sharded).total < weights
    assert gpu_bytes(LLAMA3_8B, sharded) == weights + CUDA_CONTEXT
    lora = LoraSection(rank=64)
    updates = 4 * adapter_parameters(LLAMA3_8B, lora)
    assert gpu_bytes(LLAMA3_8B, replace(sharded, lora=lora)) == weights + updates + CUDA_CONTEXT
    alone = replace(sharded, ranks=1, sharding="none")
    assert gpu_bytes(LLAMA3_8B, alone) == gpu_memory(LLAMA3_8B, alone).total + CUDA_CONTEXT
    # The paper's runs load in host memory.
    paper = replace(sharded, sharding="zero3", cpu_offload=True, pure_bf16=True)
    held = FITTED.held * LLAMA3_8B.parameters
    assert gpu_bytes(LLAMA3_8B, paper) == gpu_memory(LLAMA3_8B, paper).total + held + CUDA_CONTEXT
    assert gpu_bytes(LLAMA3_8B, paper) < weights + CUDA_CONTEXT


def test_options_for_activations_save_in_their_order():
    base = Setup(24_000)
    saved = {
        option: gpu_memory(LLAMA3_8B, replace(base, checkpointing=option)).total
        for option in ("none", "selective", "full", "offload")
    }
    assert saved["none"] > saved["selective"] > saved["full"] > saved["offload"]
    full = replace(base, checkpointing="full")
    assert gpu_memory(LLAMA3_8B, replace(full, mlp_tile=2048)).working < gpu_memory(LLAMA3_8B, full).working
    shared = replace(full, ranks=2, parallel="ring", sequence_ranks=2)
    assert gpu_memory(LLAMA3_8B, shared).saved == gpu_memory(LLAMA3_8B, full).saved / 2
    chunked, whole = (gpu_memory(LLAMA3_8B, replace(full, loss_chunk=c)).working for c in (512, None))
    assert whole - chunked > 0.5 * 24_000 * 128_256 * 10


def test_a_setup_is_what_the_recipe_launches():
    launch = LaunchSection(
        processes=8, parallel="usp", sequence_degree=4, ulysses_degree=2, sharding="fsdp2", cpu_offload=True,
        micro_batch=3, activation_checkpointing="offload", mlp_tile=7, loss_chunk=9,
    )  # fmt: skip
    setup = Setup.of(launch, TrainingSection(learning_rate=1e-4, precision="fp32"), 101)
    assert (setup.ranks, setup.replicas, setup.sequence_ranks, setup.head_ranks) == (8, 2, 4, 2)
    assert setup.local_tokens == 3 * 26  # padded to 104
    assert setup.micro_batches == 16  # of 96 sequences, 2 x 3 at a time
    assert (setup.sharding, setup.cpu_offload, setup.checkpointing) == ("fsdp2", True, "offload")
    assert (setup.mlp_tile, setup.loss_chunk, setup.width, setup.weight_width) == (7, 9, 4, 4)
    deepspeed = Setup.of(LaunchSection(sharding="zero3"), TrainingSection(learning_rate=1e-4, precision="bf16"), 101)
    assert (deepspeed.pure_bf16, deepspeed.weight_width) == (False, 4)  # autocast over fp32 weights
