"""The start-up check that training on skipped positions is what it says it is (traps, 1)."""

from typing import Any

import torch
import torch.distributed as dist

from longrecipe_core.attention.sequence import SequenceGroup, gather_parts, sequence_group
from longrecipe_core.errors import AttentionError

PROBE_TOKENS = 16


def probe(model: Any, shared: SequenceGroup | None = None, **forward_options: Any) -> None:
    """Raise unless the last token's output depends on every token before it, across position jumps.

    Runs the model as it is (train or eval mode, checkpointing, dtype) on two rows of random tokens whose positions jump
    three times, and follows the gradient of the last hidden state back to the embedding *output*: with tied weights
    the embedding's weights get gradient through the head even where attention is cut. Leaves no gradient and no
    change in the random state behind.

    Args:
        model: A transformers causal LM.
        shared: The ranks that share a sequence, as the model is attached to them; all of them call together.
        **forward_options: As they are passed in training.

    Raises:
        AttentionError: Attention is cut somewhere; names the first token that is not seen.
    """
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    shared = shared or sequence_group("local")
    multiple = shared.layout.multiple
    count = multiple * -(-PROBE_TOKENS // multiple)
    tokens = torch.arange(count, device=device).expand(2, -1) % vocabulary
    positions = torch.arange(count, device=device) + tokens.new_tensor([0, 7, 20, 41])[torch.arange(count) * 4 // count]
    place = dist.get_rank(shared.group) if shared.group is not None else 0
    mine = shared.layout.tokens(count, place).to(device)
    # The sum of a normalised vector has no gradient, a fixed direction has.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        embedded = model.get_input_embeddings()(tokens[:, mine]).detach().requires_grad_(True)
        hidden = model.base_model(
            inputs_embeds=embedded, position_ids=positions[mine].expand(2, -1), use_cache=False, **forward_options
        ).last_hidden_state
        direction = torch.linspace(-1, 1, hidden.shape[-1], device=device, dtype=hidden.dtype)
        # The last token may be another rank's; its gradient comes back to each rank's tokens through attention.
        last = gather_parts(hidden, shared)[:, -1]
        # autograd.grad and not backward: the parameters' own gradients stay untouched.
        (gradient,) = torch.autograd.grad((last * direction).sum(), embedded)
    reached = gather_parts((gradient != 0).any(-1).all(0)[None].to(torch.uint8), shared)[0].bool().cpu()
    if not bool(reached.all()):
        raise AttentionError(
            f"attention is cut where positions are skipped: the last of {count} tokens does not see token "
            f"{int((~reached).nonzero()[0])}; the model runs {model.config._attn_implementation!r}, and only "
            f"longrecipe_core.attention.attach(model) makes training on skipped positions sound"
        )
