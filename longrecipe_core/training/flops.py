"""Arithmetic of training, for the model FLOPs utilisation (Chowdhery et al. 2022, appendix B)."""

from typing import Any

import torch

from longrecipe_core.cost.gpus import PEAK_BF16


def training_flops(model: Any, tokens: int, length: int) -> float:
    """FLOPs of forward and backward over `tokens` tokens in sequences of `length`; recomputation is not counted.

    6 per parameter and token in matrix products, 4 where it is frozen and has no gradient of its own, the embedding
    look-up aside; and 6 * hidden * length per layer and token for causal attention, half of the square.
    """
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings().weight
    products = sum(_flops(parameter) for parameter in model.parameters())
    # A tied embedding is counted once and used once, as the head; an untied one is used for look-up only.
    looked_up = 0 if config.tie_word_embeddings else _flops(embedding)
    attention = 6 * config.num_hidden_layers * config.hidden_size * length
    return float(tokens * (products - looked_up + attention))


def _flops(parameter: Any) -> int:
    return (6 if parameter.requires_grad else 4) * _size(parameter)


def _size(parameter: Any) -> int:
    """Elements of the whole; ZeRO-3 keeps an empty tensor in the place of a parameter."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP/s that the device can do at best, where its data sheet says so; None on a CPU and for fp32."""
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAK_BF16.items() if known in name), None)
