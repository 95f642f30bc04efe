"""The chunked loss against plain float64 cross-entropy over whole logits."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longrecipe_core.attention import attach
from longrecipe_core.errors import ModelError
from longrecipe_core.training.loss import SummedLoss


def tiny(**extra):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=211, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, **extra,
    )  # fmt: skip
    return attach(LlamaForCausalLM(config).train())


def batch():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 211, (2, 30), generator=generator)
    labels = torch.cat([tokens[:, 1:], torch.full((2, 1), -100)], dim=1)
    labels[1, 20:] = -100  # padding
    return tokens, torch.arange(30).expand(2, -1), labels


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunk", [7, 512])
def test_loss_and_gradients_equal_plain_cross_entropy(tied, chunk):
    tokens, positions, labels = batch()
    model = tiny(tie_word_embeddings=tied)
    loss = SummedLoss(model, chunk)(tokens, positions, labels)
    loss.backward()

    plain = tiny(tie_word_embeddings=tied).double()
    logits = plain(input_ids=tokens, position_ids=positions).logits
    kept = labels != -100
    expected = -logits.log_softmax(-1)[kept].gather(1, labels[kept][:, None]).sum()
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-5 * kept.sum()
    for (name, actual), oracle in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (actual.grad - oracle.grad).abs().max() < 1e-4 * max(1, oracle.grad.abs().max()), name


def test_padding_has_no_effect():
    tokens, positions, labels = batch()
    model = SummedLoss(tiny(), 16)
    expected = model(tokens, positions, labels)
    tokens[1, 22:] = 5
    assert torch.equal(model(tokens, positions, labels), expected)


def test_no_logits_of_the_whole_sequence_exist():
    """2,048 tokens by 20,000 entries would be 164 MB in one piece; chunks of 64 are 5 MB."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20_000, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=2048,
    )  # fmt: skip
    model = SummedLoss(attach(LlamaForCausalLM(config).train()), 64)
    tokens = torch.randint(0, 20_000, (1, 2048))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        model(tokens, torch.arange(2048)[None], tokens).backward()
    largest = max(abs(event.cpu_memory_usage) for event in profile.events() if not event.cpu_children)
    assert largest < 40 * 2**20


def test_a_head_that_changes_its_logits_is_refused():
    model = tiny()
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(ModelError, match=r"final_logit_softcapping 30\.0"):
        SummedLoss(model, 16)
