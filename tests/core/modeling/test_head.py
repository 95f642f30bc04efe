"""Models whose logits are not their head's output are refused, known by name or not."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling.head import check_plain_head


class Scaled(LlamaForCausalLM):
    """As Falcon-H1's head, whose factor has a name of its own."""

    def forward(self, *arguments, **options):
        output = super().forward(*arguments, **options)
        output.logits = output.logits * 0.5
        return output


def tiny(cls):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = cls(config)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    return model.train()


def test_logits_must_be_the_heads_output():
    model = tiny(LlamaForCausalLM)
    check_plain_head(model, "there")
    assert model.training
    with pytest.raises(ModelError, match=r"there: the logits of Scaled are not its head's output"):
        check_plain_head(tiny(Scaled), "there")
    model.config.logits_scaling = 8.0
    with pytest.raises(ModelError, match=r"there: LlamaForCausalLM has logits_scaling 8\.0"):
        check_plain_head(model, "there")
