"""FLOPs against what torch counts in a real step of a tiny model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from longrecipe_core.cost.flops import attention_flops_per_token, model_flops_per_token, training_flops_per_token
from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import ModelShape
from longrecipe_core.recipe import LoraSection
from longrecipe_core.training.flops import training_flops
from longrecipe_core.training.lora import add_lora

LENGTH = 40
SIZES = {
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}


def make(tied: bool, kind: str = "llama"):
    """A model with plain attention, whose every product torch sees, and its shape."""
    config = AutoConfig.for_model(kind, **SIZES, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    return model, ModelShape.from_config(config.to_dict(), "test")


def counted(model) -> tuple[float, float]:
    """FLOPs of linear layers and of attention's products, over forward and backward of one sequence."""
    ids = torch.arange(LENGTH)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.sum().backward()
    ops = counter.get_flop_counts()["Global"]
    addmm = ops.get(torch.ops.aten.addmm, 0)
    return ops[torch.ops.aten.mm] + addmm, ops[torch.ops.aten.bmm]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_step_without_recomputation(tied, kind):
    model, shape = make(tied, kind)
    linear, attention = counted(model)
    # Plain attention computes the whole square; the formula's is causal, half of it.
    assert attention / 2 == pytest.approx(3 * LENGTH * attention_flops_per_token(shape, LENGTH), rel=0.01)
    told = LENGTH * model_flops_per_token(shape, LENGTH)
    assert linear + attention / 2 == pytest.approx(told, rel=0.01)  # norms and biases count as if they multiplied
    assert training_flops_per_token(shape, Setup(LENGTH)) * LENGTH == told


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_formula_of_the_training_log(tied):
    model, shape = make(tied)
    assert training_flops(model, 7 * LENGTH, LENGTH) == 7 * LENGTH * model_flops_per_token(shape, LENGTH)


def test_full_checkpointing_computes_the_layers_twice():
    model, shape = make(True)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    linear, attention = counted(model)
    told = LENGTH * training_flops_per_token(shape, Setup(LENGTH, checkpointing="full"))
    # Recomputation stops at what backward needs: the last product of each layer is left out.
    last = 3 * 2 * 64 * 160 * LENGTH
    assert linear + attention / 2 == pytest.approx(told - last, rel=0.01)
    selective = LENGTH * training_flops_per_token(shape, Setup(LENGTH, checkpointing="selective"))
    assert told - selective == LENGTH * attention_flops_per_token(shape, LENGTH)
    assert training_flops_per_token(shape, Setup(LENGTH, checkpointing="offload")) * LENGTH == told


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize("tied", [True, False])
def test_lora_computes_no_gradient_of_frozen_weights(targets, tied):
    model, shape = make(tied)
    lora = LoraSection(rank=4, targets=targets)
    add_lora(model, lora, seed=1, stage="extend")
    linear, attention = counted(model)
    told = LENGTH * training_flops_per_token(shape, Setup(LENGTH, lora=lora))
    assert linear + attention / 2 == pytest.approx(told, rel=0.02)
    assert linear + attention / 2 == pytest.approx(training_flops(model, LENGTH, LENGTH), rel=0.02)
