"""What we ask of a model's head, where logits are computed piece by piece and not by the model itself."""

from typing import Any

import torch

from longrecipe_core.errors import ModelError


@torch.no_grad()
def check_plain_head(model: Any, name: str) -> None:
    """Raise ModelError where a causal LM's logits are not its head's output: pieces of our own would be other logits.

    Known ways (softcapping, scaling) are told by the config's name for them; any other is found by eight tokens, which
    the model and its head must agree on. `name` is what messages call the model.
    """
    config = model.config.get_text_config()
    for key, neutral in (("final_logit_softcapping", None), ("logits_scaling", 1), ("logit_scale", 1)):
        if getattr(config, key, neutral) not in (neutral, None):
            raise ModelError(
                f"{name}: {type(model).__name__} has {key} {getattr(config, key)}, which logits computed piece by "
                f"piece would lack; only models whose logits are their head's output can be used"
            )
    training = model.training
    head = model.get_output_embeddings()
    ids = torch.arange(8, device=head.weight.device)[None] % head.weight.shape[0]
    try:
        model.eval()
        own = model(input_ids=ids, use_cache=False).logits
        ours = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    finally:
        model.train(training)
    # Far looser than rounding in any precision, far tighter than a factor or a cap would leave it; broken weights are
    # told where they are met.
    if own.shape != ours.shape or not torch.allclose(own.float(), ours.float(), rtol=0.02, atol=0.02, equal_nan=True):
        raise ModelError(
            f"{name}: the logits of {type(model).__name__} are not its head's output, which logits computed piece by "
            f"piece would be; such a model can't be used"
        )
