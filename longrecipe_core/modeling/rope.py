"""RoPE changes, baked into a config before a model is built from it.

transformers computes a model's frequencies once, from `config.rope_parameters`, when it is built; the old
attribute `config.rope_theta` has no effect there. Dynamic forms, whose θ follows the longest position of a
batch, would differ between samples and ranks, so they are refused.
"""

import copy
import math
from typing import Any

from transformers import PreTrainedConfig

from longrecipe_core.errors import ModelError
from longrecipe_core.recipe.sections import RopeSection

# Llama 3.1's own values: wavelengths above window/1 are stretched in full, those below window/4 not at all.
LOW_FREQ_FACTOR = 1.0
HIGH_FREQ_FACTOR = 4.0
# The YaRN paper's values, also transformers' defaults.
BETA_FAST = 32.0
BETA_SLOW = 1.0

PLAIN = "default"
KEPT = (PLAIN, "linear", "yarn", "llama3")


def ntk_theta(theta: float, factor: float, head_dim: int) -> float:
    """θ' = θ · (f·f − (f − 1))^(d/(d−2)): dynamic NTK at length f·window, as one fixed θ (paper, section 5).

    `theta` is the base model's θ, `factor` f ≥ 1 the stretch, `head_dim` d the rotary dimensions of a head.
    Raises ModelError for a factor below 1 or a head dimension of 2 or less, where the exponent has no value.
    """
    if factor < 1 or head_dim <= 2:
        raise ModelError(f"NTK needs a factor of at least 1 and a head dimension above 2; got {factor} and {head_dim}")
    return float(theta * (factor * factor - (factor - 1)) ** (head_dim / (head_dim - 2)))


def rope_config(
    config: PreTrainedConfig, rope: RopeSection, *, window: int | None, target_length: int
) -> PreTrainedConfig:
    """A copy of `config` with the recipe's RoPE change, for positions 0..target_length−1.

    `window` is the base model's window in tokens (its `max_position_embeddings` when None); the factor is
    target_length / window unless the recipe gives one. `max_position_embeddings` is raised to the target
    length for every type, `none` included, and never lowered. YaRN and llama3 carry the old window
    explicitly, since they would else take the raised one for it.

    A base that is scaled already (linear, yarn, llama3, as Llama 3.1 is): `none` keeps its scaling, `theta`
    keeps it too and replaces only θ. `ntk`, `linear`, `yarn`, `llama3` are defined on unscaled frequencies
    and are refused there: they would undo the scaling that the weights were trained with.

    Raises ModelError, naming the value: dynamic, longrope and other run-time forms; parameters per layer
    type; partial or multimodal rotation; a sliding window or attention chunks shorter than the target; a
    factor below 1.
    """
    present = _present_parameters(config)
    _refuse_short_attention(config, target_length)
    theta, kind = float(present["rope_theta"]), str(present["rope_type"])
    if rope.type not in ("none", "theta") and kind != PLAIN:
        raise ModelError(
            f"rope type {rope.type} needs a model with unscaled RoPE, this one has rope_type {kind}; "
            "allowed: none or theta, which keep its scaling"
        )
    old_window = window or int(config.max_position_embeddings)
    changed = copy.deepcopy(config)
    changed.rope_parameters = _parameters(present, rope, theta, old_window, target_length, head_dim(config))
    if "rope_theta" in vars(changed):  # models with code of their own may still read the old attribute
        changed.rope_theta = changed.rope_parameters["rope_theta"]
    changed.max_position_embeddings = max(int(config.max_position_embeddings), target_length)
    return changed


def head_dim(config: PreTrainedConfig) -> int:
    """Dimensions of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _parameters(
    present: dict[str, Any], rope: RopeSection, theta: float, window: int, target_length: int, dimensions: int
) -> dict[str, Any]:
    if rope.type == "none":
        return present
    if rope.type == "theta":
        return {**present, "rope_theta": rope.theta}
    factor = rope.factor if rope.factor is not None else target_length / window
    if factor < 1:
        raise ModelError(
            f"rope type {rope.type}: target length {target_length} / window {window} is below 1; "
            "give a factor of at least 1, or type none"
        )
    if rope.type == "ntk":
        return {"rope_type": PLAIN, "rope_theta": ntk_theta(theta, factor, dimensions)}
    scaled = {"rope_type": rope.type, "rope_theta": theta, "factor": float(factor)}
    if rope.type == "yarn":
        scaled |= {"beta_fast": BETA_FAST, "beta_slow": BETA_SLOW, "original_max_position_embeddings": window}
    if rope.type == "llama3":
        scaled |= {
            "low_freq_factor": LOW_FREQ_FACTOR,
            "high_freq_factor": HIGH_FREQ_FACTOR,
            "original_max_position_embeddings": window,
        }
    return scaled


def _present_parameters(config: PreTrainedConfig) -> dict[str, Any]:
    present = copy.deepcopy(getattr(config, "rope_parameters", None))
    name = getattr(config, "model_type", type(config).__name__)
    if not present or not getattr(config, "max_position_embeddings", None):
        raise ModelError(f"model type {name}: its config has no rope_parameters; a RoPE decoder is needed")
    if any(isinstance(value, dict) for value in present.values()):
        raise ModelError(f"model type {name}: RoPE per layer type ({', '.join(present)}) can't be extended as one")
    kind = present.get("rope_type", PLAIN)
    if kind not in KEPT:
        raise ModelError(f"rope_type {kind} of the base changes at run time or is unknown; allowed: {', '.join(KEPT)}")
    partial = present.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
    if partial not in (None, 1, 1.0):
        raise ModelError(f"partial_rotary_factor {partial} of the base: only whole heads can be extended")
    if present.get("mrope_section"):
        raise ModelError(f"model type {name}: multimodal RoPE (mrope_section) can't be extended")
    theta = present.get("rope_theta")
    if not isinstance(theta, int | float) or not math.isfinite(theta) or theta <= 1:
        raise ModelError(f"rope_theta {theta} of the base is not a number above 1")
    if kind != PLAIN and present.get("factor") is None:
        # A factor left open follows max_position_embeddings, which is about to be raised.
        raise ModelError(f"rope_type {kind} of the base names no factor")
    return {**present, "rope_type": kind}


def _refuse_short_attention(config: PreTrainedConfig, target_length: int) -> None:
    for name in ("sliding_window", "attention_chunk_size"):
        span = getattr(config, name, None)
        if span is not None and span < target_length:
            raise ModelError(
                f"{name} {span} of the base is below the target length {target_length}: "
                "its attention never reaches that far; take a base without it, or a shorter target"
            )
