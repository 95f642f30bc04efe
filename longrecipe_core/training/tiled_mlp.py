"""Tiled MLP: the `[tokens, intermediate]` activations of a long sequence never exist at once.

An MLP treats each token by itself, so its tokens may pass in tiles, each computed again when its gradient is due
(Bekman et al. 2025, ALST, arXiv 2506.13996, section 3.1). What waits for backward is the MLP's input.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from longrecipe_core.errors import TrainingError

# The linear layers of a gated MLP, as transformers' dense decoders call them; experts have a router instead.
LAYOUTS = ({"gate_proj", "up_proj", "down_proj"}, {"gate_up_proj", "down_proj"})


def tile_mlps(model: Any, tile: int | None) -> None:
    """Let the MLP of every decoder layer take `tile` tokens at a time; None leaves the model as it is.

    Weights and their names stay. Call it before adapters are put into the linear layers.

    Args:
        model: A transformers causal LM.
        tile: Tokens, over all rows of a batch.

    Raises:
        TrainingError: Not every layer has a plain gated MLP, as with mixtures of experts.
    """
    if tile is None:
        return
    mlps = [module for name, module in model.base_model.named_modules() if name.split(".")[-1] == "mlp"]
    layers = model.config.get_text_config().num_hidden_layers
    plain = [mlp for mlp in mlps if {name for name, _ in _linear(mlp)} in LAYOUTS]
    if len(plain) != layers:
        raise TrainingError(
            f"launch.mlp_tile {tile}: {len(plain)} of the {layers} layers of {type(model).__name__} have a plain gated "
            f"MLP, and only those can be tiled; allowed: null"
        )
    for mlp in plain:
        mlp.forward = partial(_in_tiles, mlp.forward, tile)


def _linear(mlp: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """The modules with weights, or nothing where some are not linear."""
    weighted = [(name, child) for name, child in mlp.named_children() if next(child.parameters(), None) is not None]
    return weighted if all(isinstance(child, torch.nn.Linear) for _, child in weighted) else []


def _in_tiles(forward: Callable[[torch.Tensor], torch.Tensor], tile: int, hidden: torch.Tensor) -> torch.Tensor:
    """`forward(hidden)`, `[batch, sequence, hidden size]`."""
    device = hidden.device.type
    # Without the cache each tile casts the fp32 weights by itself: else the tiles would share one bf16 copy of them,
    # whose gradients would be added in bf16. Autograd adds them in fp32 and hands the sum over once, as DDP and FSDP
    # want it.
    with torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    ):
        tiles = [
            checkpoint(forward, part[None], use_reentrant=False) for part in torch.split(hidden.flatten(0, -2), tile)
        ]
    return torch.cat(tiles, dim=1).view_as(hidden)
