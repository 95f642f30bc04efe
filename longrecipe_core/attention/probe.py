"""The start-up check that training on skipped positions is what it says it is (traps, 1)."""

from typing import Any

import torch

from longrecipe_core.errors import AttentionError

PROBE_TOKENS = 16


def probe(model: Any, **forward_options: Any) -> None:
    """Raise unless the last token's output depends on every token before it, across position jumps.

    Runs the model as it is (train or eval mode, checkpointing, dtype) on two rows of random tokens whose positions jump
    three times, and follows the gradient of the last hidden state back to the embedding *output*: with tied weights
    the embedding's weights get gradient through the head even where attention is cut. Leaves no gradient and no
    change in the random state behind.

    Args:
        model: A transformers causal LM.
        **forward_options: As they are passed in training.

    Raises:
        AttentionError: Attention is cut somewhere; names the first token that is not seen.
    """
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    quarter = PROBE_TOKENS // 4
    tokens = torch.arange(PROBE_TOKENS, device=device).expand(2, -1) % vocabulary
    positions = tokens.new_tensor([0, 7, 20, 41]).repeat_interleave(quarter) + torch.arange(PROBE_TOKENS, device=device)
    # The sum of a normalised vector has no gradient, a fixed direction has.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        embedded = model.get_input_embeddings()(tokens).detach().requires_grad_(True)
        hidden = model.base_model(
            inputs_embeds=embedded, position_ids=positions.expand(2, -1), use_cache=False, **forward_options
        ).last_hidden_state
        direction = torch.linspace(-1, 1, hidden.shape[-1], device=device, dtype=hidden.dtype)
        # autograd.grad and not backward: the parameters' own gradients stay untouched.
        (gradient,) = torch.autograd.grad((hidden[:, -1] * direction).sum(), embedded)
    reached = (gradient != 0).any(-1).all(0).cpu()
    if not bool(reached.all()):
        raise AttentionError(
            f"attention is cut where positions are skipped: the last of {PROBE_TOKENS} tokens does not see token "
            f"{int((~reached).nonzero()[0])}; the model runs {model.config._attn_implementation!r}, and only "
            f"longrecipe_core.attention.attach(model) makes training on skipped positions sound"
        )
