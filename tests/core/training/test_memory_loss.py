"""The kernel of the chunked loss, where its precision or its device is special."""

import importlib.util

import pytest
import torch
from torch.nn import LinearCrossEntropyOptions

from longrecipe_core.training.loss import summed_cross_entropy

TOKENS, SIZE, VOCABULARY = 500, 32, 300


def case(with_bias=False, device="cpu", weight_type=torch.float32):
    torch.manual_seed(0)
    hidden, weight = torch.randn(TOKENS, SIZE), torch.randn(VOCABULARY, SIZE).to(weight_type)
    bias = torch.randn(VOCABULARY).to(weight_type) if with_bias else None
    labels = torch.randint(0, VOCABULARY, (TOKENS,))
    labels[::7] = -100
    return [None if part is None else part.to(device) for part in (hidden, weight, bias, labels)]


def computed(hidden, weight, bias, labels):
    """Loss, and gradients of hidden states, weight and bias."""
    given = [part.detach().clone().requires_grad_() for part in (hidden, weight, bias) if part is not None]
    bias = given[2] if len(given) == 3 else None
    loss = summed_cross_entropy(given[0], given[1], bias, labels, LinearCrossEntropyOptions(batch_chunk_size=16))
    loss.backward()
    return loss.detach(), [part.grad for part in given]


def plain(hidden, weight, bias, labels):
    """The same in float64, whole."""
    given = [part.detach().double().requires_grad_() for part in (hidden, weight, bias) if part is not None]
    logits = given[0] @ given[1].T + (given[2] if len(given) == 3 else 0)
    kept = labels != -100
    loss = -logits.log_softmax(-1)[kept].gather(1, labels[kept][:, None]).sum()
    loss.backward()
    return loss.detach(), [part.grad for part in given]


def assert_near(actual, expected, loss_error, gradient_error):
    assert actual[0].dtype == torch.float32
    assert abs(actual[0] - expected[0]) < loss_error * expected[0]
    for mine, oracle in zip(actual[1], expected[1], strict=True):
        assert (mine - oracle).norm() < gradient_error * oracle.norm()


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("weight_type", [torch.float32, torch.bfloat16])
def test_the_sum_is_fp32_whatever_the_weights_are(weight_type, with_bias):
    """In bf16 the sum over chunks of 16 tokens would be off by several percent."""
    inputs = case(with_bias, weight_type=weight_type)
    assert_near(computed(*inputs), plain(*inputs), 1e-6, 1e-5 if weight_type == torch.float32 else 3e-3)


def test_a_rank_without_a_target_adds_nothing():
    """As with the part of a shared sequence that is all padding."""
    hidden, weight, bias, labels = case(with_bias=True)
    loss, gradients = computed(hidden, weight, bias, torch.full_like(labels, -100))
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("weight_type", [torch.float32, torch.bfloat16])
def test_cuda_loss_equals_plain_cross_entropy(weight_type, with_bias, bf16):
    """Liger's kernel where it is installed, else torch's."""
    inputs = case(with_bias, "cuda", weight_type)
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        actual = computed(*inputs)
    exact = weight_type == torch.float32 and not bf16
    assert_near(actual, plain(*inputs), 1e-5 if exact else 1e-2, 1e-4 if exact else 3e-2)
    if importlib.util.find_spec("liger_kernel") is not None:
        hidden, weight, bias, labels = inputs
        node = summed_cross_entropy(hidden.requires_grad_(), weight, bias, labels, LinearCrossEntropyOptions()).grad_fn
        assert "Liger" in type(node).__name__
