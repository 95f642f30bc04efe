"""Our attention against a plain float64 decoder, for five families, as in training."""

import decoder_oracle
import pytest
import torch
from tiny_models import make_model

from longrecipe_core.attention import attach, probe
from longrecipe_core.attention.ops import causal_attention
from longrecipe_core.errors import AttentionError

FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "phi3"]
POSITIONS = torch.tensor([*range(5), *range(40, 47), *range(47, 52), 90, 127])


def sample(batch):
    torch.manual_seed(1)
    tokens = torch.randint(1, 97, (batch, len(POSITIONS)))
    return tokens, POSITIONS.expand(batch, -1) + 0 * tokens


def oracle_weights(model):
    return {name: p.detach().double().requires_grad_(True) for name, p in model.named_parameters()}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_the_oracle(family, checkpointing, batch):
    model = attach(make_model(family))
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    tokens, positions = sample(batch)
    weights = oracle_weights(model)
    expected = decoder_oracle.logits(weights, model.config, tokens, positions)
    actual = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
    assert (actual - expected).abs().max() < 1e-5

    upstream = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (expected * upstream).mean().backward()
    (actual.double() * upstream).mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad - weights[name].grad).abs().max() < 1e-5, name


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_every_grouping_of_kv_heads(kv_heads):
    model = attach(make_model("llama", kv_heads=kv_heads))
    tokens, positions = sample(2)
    expected = decoder_oracle.logits(oracle_weights(model), model.config, tokens, positions)
    assert (model(input_ids=tokens, position_ids=positions).logits - expected).abs().max() < 1e-5


def test_packed_samples_can_be_kept_apart():
    model = attach(make_model("llama"))
    tokens, _ = sample(2)
    positions = torch.arange(tokens.shape[1]).expand(2, -1)
    starts = [torch.tensor([0, 6, 11]), torch.tensor([0, 3])]
    actual = model(input_ids=tokens, position_ids=positions, use_cache=False, sample_starts=starts).logits
    for row, first in enumerate(starts):
        expected = decoder_oracle.logits(
            oracle_weights(model),
            model.config,
            tokens[row : row + 1],
            positions[row : row + 1],
            first.tolist(),
        )
        assert (actual[row : row + 1] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_attention_fails_the_probe_and_ours_passes(family):
    model = make_model(family)
    with pytest.raises(AttentionError, match="does not see token 0"):
        probe(model)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    probe(attach(model))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_tied_weights_do_not_fool_the_probe():
    with pytest.raises(AttentionError, match="does not see token 0"):
        probe(make_model("llama", tie_word_embeddings=True))


def test_probe_leaves_the_random_state_alone():
    model = attach(make_model("llama"))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    probe(model)
    assert torch.equal(torch.rand(3), expected)


def test_right_padding_is_harmless_and_left_padding_refused():
    model = attach(make_model("llama"))
    tokens, positions = sample(1)
    mask = torch.ones_like(tokens)
    whole = model(input_ids=tokens, position_ids=positions).logits
    mask[:, -3:] = 0
    padded = model(input_ids=tokens, position_ids=positions, attention_mask=mask).logits
    assert torch.equal(whole[:, :-3], padded[:, :-3])
    with pytest.raises(AttentionError, match="pads on the right only"):
        model(input_ids=tokens, position_ids=positions, attention_mask=mask.flip(1))


def test_what_our_kernels_do_not_compute_is_refused():
    tokens, positions = sample(1)
    with pytest.raises(AttentionError, match="sliding_window 8 is shorter than the sequence of 19"):
        attach(make_model("mistral", sliding_window=8))(input_ids=tokens, position_ids=positions)
    model = attach(make_model("llama")).eval()
    with pytest.raises(AttentionError, match="a cache is in use"):
        model.generate(tokens, max_new_tokens=2, do_sample=False)
    with pytest.raises(AttentionError, match="ready-made attention mask"):
        attach(make_model("llama"))(input_ids=tokens, attention_mask=torch.zeros(1, 1, 19, 19))
    with pytest.raises(AttentionError, match="unknown; allowed: local"):
        attach(make_model("llama"), parallel="rign")


def test_no_quadratic_matrix_is_made():
    """16k tokens: one fp32 score matrix would be 1 GiB a head."""
    query = torch.randn(1, 16_384, 2, 8)
    key = torch.randn(1, 16_384, 1, 8)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        causal_attention(query, key, key, scale=0.3)
    assert max(event.self_cpu_memory_usage for event in profile.key_averages()) < 64 * 2**20


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_kernel_equals_cpu():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 100, heads, 64, dtype=torch.bfloat16) for heads in (4, 2, 2))
    results = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16), ("cuda", torch.float32)):
        parts = [part.to(device, dtype).requires_grad_(True) for part in (query, key, value)]
        out = causal_attention(*parts, scale=0.125)
        gradients = torch.autograd.grad(out.square().sum(), parts)
        results.append([tensor.detach().cpu().float() for tensor in (out, *gradients)])
    for rounded, exact, expected in zip(results[1], results[2], results[0], strict=True):
        assert (rounded - expected).abs().max() < 0.05 * expected.abs().max()
        assert (exact - expected).abs().max() < 1e-4 * expected.abs().max()
