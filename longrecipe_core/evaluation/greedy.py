"""Greedy answers by transformers' own `generate`, with its stock attention and cache."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from transformers import GenerationConfig

from longrecipe_core.evaluation.measurements import Answers
from longrecipe_core.evaluation.nll import TOKENS_PER_FORWARD
from longrecipe_core.evaluation.ruler.prompts import Prompt


@torch.no_grad()
def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, bf16: bool, noted: Answers | None = None
) -> list[str]:
    """The text that the model goes on with after each prompt, up to its end of text or the prompt's `new_tokens`.

    Prompts of like lengths are padded on the left and computed together, as many as have `TOKENS_PER_FORWARD` tokens;
    one that is longer than half of that is alone, without padding and so without a mask as large as its square.
    Batches that `noted` has are not computed again, and each that is computed is noted.
    """
    device = next(model.parameters()).device
    end = model.generation_config.eos_token_id
    padding = next(id for id in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if id is not None)
    # A model's own config may penalize repetitions, or sample.
    model.generation_config = GenerationConfig(
        do_sample=False, num_beams=1, eos_token_id=end, pad_token_id=padding, bos_token_id=tokenizer.bos_token_id
    )
    noted = Answers() if noted is None else noted
    for batch in batches(prompts):
        if all(at in noted for at in batch):
            continue
        width = max(len(prompts[at].input_ids) for at in batch)
        ids = torch.full((len(batch), width), padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, at in enumerate(batch):
            own = torch.from_numpy(prompts[at].input_ids.astype("int64"))
            ids[row, width - len(own) :] = own
            mask[row, width - len(own) :] = 1
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            found = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=prompts[batch[0]].new_tokens,
            )
        texts = (tokenizer.decode(new, skip_special_tokens=True) for new in found[:, width:].tolist())
        noted.note(dict(zip(batch, texts, strict=True)))
    return [noted[at] for at in range(len(prompts))]


def batches(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Rows of prompts that are computed together: equal `new_tokens`, and lengths next to each other."""
    order = sorted(range(len(prompts)), key=lambda at: (prompts[at].new_tokens, -len(prompts[at].input_ids)))
    while order:
        first = prompts[order[0]]
        room = max(1, TOKENS_PER_FORWARD // (len(first.input_ids) + first.new_tokens))
        batch = [at for at in islice(order, room) if prompts[at].new_tokens == first.new_tokens]
        del order[: len(batch)]
        yield batch
