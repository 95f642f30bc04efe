"""MLPs in tiles: the same gradients, and no activation wider than a tile."""

import pytest
import torch
from memory_models import FAMILIES, INTERMEDIATE, OPTIONS, Waiting, batch, loss_and_gradients, tiny
from transformers import AutoModelForCausalLM, MixtralConfig

from longrecipe_core.errors import TrainingError
from longrecipe_core.training.activation_checkpointing import checkpoint_activations
from longrecipe_core.training.loss import SummedLoss
from longrecipe_core.training.tiled_mlp import tile_mlps

TOKENS = 2 * 24  # of a batch


def tiled(family, tile, option="none"):
    model = tiny(family)
    tile_mlps(model, tile)
    checkpoint_activations(model, option)
    return model


@pytest.mark.parametrize("tile", [1, 7, TOKENS, 1000])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_the_same(family, tile):
    loss, expected = loss_and_gradients(tiny(family))
    actual_loss, actual = loss_and_gradients(tiled(family, tile))
    assert abs(actual_loss - loss) < 1e-6 * loss
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (actual[name] - gradient).abs().max() <= 1e-6 * max(1, gradient.abs().max()), name


@pytest.mark.parametrize("option", OPTIONS[1:])
def test_checkpointing_around_it_changes_no_bit(option):
    loss, expected = loss_and_gradients(tiled("llama", 7))
    actual_loss, actual = loss_and_gradients(tiled("llama", 7, option))
    assert torch.equal(actual_loss, loss)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_under_bf16_the_gradients_of_many_tiles_are_added_in_fp32():
    """Rounded to bf16 after each of 240 tiles, the sum would be off by more than one rounding of the whole is."""
    inputs = batch(length=240)
    exact = loss_and_gradients(tiny("llama").double(), *inputs)[1]
    name = "model.layers.2.mlp.down_proj.weight"
    whole, many = (
        (loss_and_gradients(model, *inputs, bf16=True)[1][name] - exact[name]).norm()
        for model in (tiny("llama"), tiled("llama", 2))
    )
    assert many < 1.1 * whole


@pytest.mark.parametrize("option", OPTIONS)
def test_no_activation_is_wider_than_a_tile(option):
    for tile in (TOKENS, 40):  # both wider than a weight has rows
        model = SummedLoss(tiled("llama", tile, option), 16)
        with Waiting() as mode:
            model(*batch()).backward()
        assert mode.widest == tile * INTERMEDIATE


def test_only_the_input_of_an_mlp_waits():
    waiting = {}
    for tile in (None, 24):
        model = SummedLoss(tiled("llama", tile), 16)
        with Waiting() as mode:
            loss = model(*batch(length=240))
        waiting[tile] = mode.bytes()
        loss.backward()
    one = 2 * 240 * INTERMEDIATE * 4
    assert waiting[None] - waiting[24] >= 3 * 3 * one  # gate, up and their product, in each of three layers


def test_each_parameter_gets_its_gradient_once():
    """As DDP and FSDP need it, however many tiles there are."""
    model = tiled("llama", 7, "full")
    times = dict.fromkeys(dict(model.named_parameters()), 0)
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: times.update({name: times[name] + 1}))
    loss_and_gradients(model)
    assert set(times.values()) == {1}


def test_names_of_weights_stay():
    assert list(tiled("llama", 7).state_dict()) == list(tiny("llama").state_dict())


def test_a_mixture_of_experts_is_refused():
    config = MixtralConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(TrainingError, match=r"mlp_tile 8: 0 of the 2 layers of MixtralForCausalLM") as caught:
        tile_mlps(model, 8)
    assert "\n" not in str(caught.value)
    tile_mlps(model, None)
