"""Small models with random weights, of the families that tests compare with the oracle."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def make_model(family, heads=4, kv_heads=2, hidden=32, **extra):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=97,
        hidden_size=hidden,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=128,
        pad_token_id=0,
        **({"head_dim": 8} if family in ("qwen3", "mistral") else {}),
        **extra,
    )
    if hasattr(config, "sliding_window") and "sliding_window" not in extra:
        config.sliding_window = None
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.train()
