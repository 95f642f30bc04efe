"""Hugging Face checkpoints: fetch, load, save, RoPE configuration, completeness.

`smollm2` is a command of its own and is not imported here.
"""

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
