"""Hugging Face checkpoints: fetch, load, save, RoPE configuration, completeness.

Names are imported when they are first used: merging needs the files' layout only, and transformers takes seconds.
`smollm2` is a command of its own and has no name here.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longrecipe_core.modeling.checkpoint import load_config, load_model, save_model
    from longrecipe_core.modeling.completeness import CheckpointSummary, check_complete, finish_checkpoint
    from longrecipe_core.modeling.rope import ntk_theta, rope_config
    from longrecipe_core.modeling.saved_config import check_saved_rope
    from longrecipe_core.modeling.source import fetch_model, model_identity
    from longrecipe_core.modeling.tiny import make_tiny_config, make_tiny_model

__all__ = [
    "CheckpointSummary",
    "check_complete",
    "check_saved_rope",
    "fetch_model",
    "finish_checkpoint",
    "load_config",
    "load_model",
    "make_tiny_config",
    "make_tiny_model",
    "model_identity",
    "ntk_theta",
    "rope_config",
    "save_model",
]

_MODULES = {
    "checkpoint": ("load_config", "load_model", "save_model"),
    "completeness": ("CheckpointSummary", "check_complete", "finish_checkpoint"),
    "rope": ("ntk_theta", "rope_config"),
    "saved_config": ("check_saved_rope",),
    "source": ("fetch_model", "model_identity"),
    "tiny": ("make_tiny_config", "make_tiny_model"),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
