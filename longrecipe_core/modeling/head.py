"""What we ask of a model's head, where logits are computed piece by piece and not by the model itself."""

from typing import Any

from longrecipe_core.errors import ModelError


def check_plain_head(model: Any, name: str) -> None:
    """Raise ModelError where a causal LM changes its logits after the head: pieces of our own would lack that.

    `name` is what messages call the model.
    """
    config = model.config.get_text_config()
    for key, neutral in (("final_logit_softcapping", None), ("logits_scaling", 1), ("logit_scale", 1)):
        if getattr(config, key, neutral) not in (neutral, None):
            raise ModelError(
                f"{name}: {type(model).__name__} has {key} {getattr(config, key)}, which logits computed piece by "
                f"piece would lack; only models whose logits are their head's output can be used"
            )
