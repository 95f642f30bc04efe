"""LoRA: low-rank updates in place of full weights (Hu et al. 2021, arXiv 2106.09685), through `peft`.

For longer contexts low-rank updates alone fall short; with embeddings and norms trained beside them they come close to
full training (Chen et al. 2023, LongLoRA, arXiv 2309.12307, section 3.3).
"""

from typing import Any

import torch

from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import TrainingError
from longrecipe_core.recipe import LoraSection

_ADAPTER = "default"


def add_lora(model: Any, lora: LoraSection, *, seed: int, stage: str) -> None:
    """Freeze a model in place but for new low-rank updates and, if asked for, embeddings and norms.

    The updates begin at zero: B is zero, and A the same on every rank, drawn from `seed` and `stage`.

    Args:
        model: A transformers causal LM on the CPU.
        lora: What is adapted, and how.
        seed: The recipe's.
        stage: Name of the stage, so that two don't draw alike.

    Raises:
        TrainingError: peft isn't installed, the model has no linear layer of the kind asked for, or one of them is too
            small for the rank.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise TrainingError(f"{stage}.lora needs the package peft: pip install '.[lora]'") from error
    targets = _targets(model, lora.targets)
    if not targets:
        raise TrainingError(f"{stage}.lora.targets {lora.targets}: {type(model).__name__} has no such linear layer")
    smallest = min(targets, key=lambda name: min(model.get_submodule(name).weight.shape))
    side = min(model.get_submodule(smallest).weight.shape)
    if lora.rank > side:
        raise TrainingError(
            f"{stage}.lora.rank {lora.rank} is above the smaller side of {smallest}.weight; allowed: 1..{side}"
        )
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "lora", stage).integers(2**63)))
        inject_adapter_in_model(config, model, _ADAPTER)
    if lora.train_embeddings_and_norms:
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) or "norm" in type(module).__name__.lower():
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(True)


def merge_lora(model: Any, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a model under its own names, its low-rank updates added; the model has none afterwards.

    Without updates both stay as they are.

    Args:
        model: As `add_lora` left it; it may be sharded, for its values aren't read.
        weights: Its whole state dict, gathered.

    Returns:
        What `save_model` takes as `state_dict`. Weights without an update are the given tensors.
    """
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    merged = dict(weights)
    for name, module in adapted.items():
        down, up = (merged.pop(f"{name}.lora_{letter}.{_ADAPTER}.weight") for letter in "AB")
        weight = merged.pop(f"{name}.base_layer.weight")
        # As peft's forward has it, `x W' + alpha / rank * (x A') B'`, in the precision of the masters.
        update = module.scaling[_ADAPTER] * (up.float() @ down.float())
        merged[f"{name}.weight"] = (weight.float() + update).to(weight.dtype)
        if (bias := merged.pop(f"{name}.base_layer.bias", None)) is not None:
            merged[f"{name}.bias"] = bias
        model.set_submodule(name, module.base_layer)
    if adapted:
        del model.peft_config
    return merged


def _targets(model: Any, kind: str) -> list[str]:
    """Names of the linear layers to adapt; the head, which makes logits, is none of them."""
    head = model.get_output_embeddings()
    linear = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head]
    if kind == "all-linear":
        return linear
    return [name for name in linear if any("attn" in part or "attention" in part for part in name.split(".")[:-1])]
