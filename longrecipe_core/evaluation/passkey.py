"""Passkey retrieval: a five-digit key hidden in filler text, asked for at the end (Mohtashami and Jaggi 2023)."""

from typing import Any

import numpy as np
import torch

from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import EvaluationError

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
KEY = "The pass key is {key}. Remember it. {key} is the pass key. "
QUESTION = "What is the pass key? The pass key is"


def passkey_prompt(tokenizer: Any, distance: int, key: str) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the answer; `distance` filler tokens stand between key and question."""

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    filler = encode(FILLER)
    between = (filler * (distance // len(filler) + 1))[:distance]
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    question = encode(QUESTION)
    answer = encode(f"{QUESTION} {key}")[len(question) :]
    return [*start, *encode(KEY.format(key=key)), *between, *question], answer


def check_passkey(tokenizer: Any, distance: int, target_length: int) -> None:
    """Raise EvaluationError where prompt and answer at this distance are longer than the target length."""
    prompt, answer = passkey_prompt(tokenizer, distance, "99999")
    if len(prompt) + len(answer) > target_length:
        raise EvaluationError(
            f"evaluation.passkey.distances: {distance} makes a prompt of {len(prompt) + len(answer)} tokens, above the "
            f"target length {target_length}"
        )


@torch.no_grad()
def passkey_accuracy(
    model: Any, tokenizer: Any, distance: int, trials: int, *, target_length: int, seed: int, bf16: bool
) -> float:
    """Share of keys that greedy decoding gives back whole.

    One forward pass over prompt and answer: greedy decoding gives the answer exactly when each of its tokens is the
    most likely one after the true ones before it.

    Raises:
        EvaluationError: Prompt and answer are longer than the target length.
    """
    device = next(model.parameters()).device
    check_passkey(tokenizer, distance, target_length)
    right = 0
    for trial in range(trials):
        key = str(generator(seed, "passkey", distance, trial).integers(10_000, 100_000))
        prompt, answer = passkey_prompt(tokenizer, distance, key)
        tokens = torch.tensor([prompt + answer], device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
            logits = model.get_output_embeddings()(hidden[:, len(prompt) - 1 : -1])
        right += bool(np.array_equal(logits.argmax(-1)[0].cpu().numpy(), answer))
    return right / trials
