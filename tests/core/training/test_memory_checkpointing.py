"""Every option of activation checkpointing: the same gradients, less that waits for backward."""

import pytest
import torch
from memory_models import FAMILIES, LAYERS, OPTIONS, Waiting, batch, loss_and_gradients, tiny
from torch.multiprocessing.reductions import StorageWeakRef

from longrecipe_core.attention import ops, probe
from longrecipe_core.errors import TrainingError
from longrecipe_core.training.activation_checkpointing import checkpoint_activations
from longrecipe_core.training.loss import SummedLoss


def with_option(family, option, **extra):
    model = tiny(family, **extra)
    checkpoint_activations(model, option)
    return model


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("option", OPTIONS[1:])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_the_same_bits(family, option, bf16):
    loss, expected = loss_and_gradients(tiny(family), bf16=bf16)
    model = with_option(family, option)
    for _ in range(2):  # nothing of a step is left behind that the next one would find
        actual_loss, actual = loss_and_gradients(model, bf16=bf16)
        assert torch.equal(actual_loss, loss)
        assert actual.keys() == expected.keys() == dict(model.named_parameters()).keys()
        assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("option", "runs"), [("none", 1), ("selective", 1), ("full", 2), ("offload", 2)])
def test_how_often_the_attention_of_a_layer_runs(monkeypatch, option, runs):
    calls = []
    kernel = ops.block_forward
    model = SummedLoss(with_option("llama", option), 16)
    monkeypatch.setattr(ops, "block_forward", lambda *args: calls.append(0) or kernel(*args))
    model(*batch()).backward()
    assert len(calls) == runs * LAYERS


def test_what_waits_for_backward():
    """Live bytes after the forward, of a loss whose share is small; on a CPU what is offloaded counts like the rest."""
    waiting = {}
    for option in OPTIONS[:3]:
        model = SummedLoss(with_option("llama", option), 16)
        with Waiting() as mode:
            loss = model(*batch(length=240))
        waiting[option] = mode.bytes()
        loss.backward()
    layer_input = LAYERS * 2 * 240 * 32 * 4
    assert waiting["full"] + layer_input <= waiting["selective"] < waiting["none"] / 2
    # All inputs wait, and beside them what stands before and after the layers.
    assert layer_input < waiting["full"] < 3 * layer_input


@pytest.mark.parametrize(("option", "gone"), [("full", False), ("offload", True)])
def test_offloaded_inputs_of_layers_leave_the_device(option, gone):
    model = SummedLoss(with_option("llama", option), 16)
    seen = []
    for layer in model.model.model.layers:
        layer.register_forward_pre_hook(lambda _, args: seen.append(StorageWeakRef(args[0].untyped_storage())))
    loss = model(*batch())
    assert [reference.expired() for reference in seen] == [gone] * LAYERS
    loss.backward()


@pytest.mark.parametrize("option", OPTIONS)
def test_a_backward_that_never_comes_leaves_nothing(option):
    """The probe takes a gradient of its own; an evaluation none."""
    model = with_option("llama", option)
    with torch.autocast("cpu", torch.bfloat16):
        probe(model)
    summed_loss = SummedLoss(model, 16)
    with torch.no_grad():
        summed_loss(*batch())
    with Waiting() as mode:
        loss = summed_loss(*batch(length=240))
    assert mode.bytes() > 100_000
    del loss
    assert mode.bytes() < 10_000
    assert torch.equal(loss_and_gradients(model)[0], loss_and_gradients(tiny("llama"))[0])


@pytest.mark.parametrize("option", OPTIONS)
def test_names_of_weights_stay(option):
    model = with_option("qwen2", option)
    assert list(model.state_dict()) == list(tiny("qwen2").state_dict())


@pytest.mark.parametrize("option", OPTIONS[1:])
def test_a_model_without_the_switch_is_refused(monkeypatch, option):
    model = tiny("llama")
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(TrainingError, match=f"activation_checkpointing {option}.*allowed with it: none") as caught:
        checkpoint_activations(model, option)
    assert "\n" not in str(caught.value)
    checkpoint_activations(model, "none")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_options_agree_and_offload_takes_least():
    """Many layers in flight over the copying stream, several steps: a copy that came late would be other numbers."""
    expected, peaks = {}, {}
    inputs = [part.cuda() for part in batch(length=4096)]
    for option in OPTIONS:
        model = with_option("llama", option, num_hidden_layers=16).cuda()
        for _ in range(4):
            torch.cuda.reset_peak_memory_stats()
            _, gradients = loss_and_gradients(model, *inputs)
            peaks[option] = torch.cuda.max_memory_allocated()
            expected = expected or gradients
            for name, gradient in gradients.items():
                assert (gradient - expected[name]).norm() < 1e-4 * expected[name].norm(), name
        del model
    assert peaks["offload"] < peaks["full"] < peaks["selective"] < peaks["none"]
