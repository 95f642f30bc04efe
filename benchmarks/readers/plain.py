"""The mean NLL in plain transformers, by a program that has nothing of this package.

    python plain.py MODEL TEXT LENGTH FIRST

prints the mean over the tokens at positions FIRST + 1 … LENGTH - 1 of the text, and how many tokens
the whole text has.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CHUNK = 1024


@torch.no_grad()
def main() -> None:
    """Print one JSON object."""
    model_path, text_path, length, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    with open(text_path, encoding="utf-8") as file:
        every = tokenizer(file.read(), return_tensors="pt", verbose=False).input_ids
    tokens = every[:, :length]
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    total, count = 0.0, 0
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[0]
    for start in range(first, length - 1, CHUNK):
        end = min(start + CHUNK, length - 1)
        logits = model.lm_head(hidden[start:end]).double()
        total += float(torch.nn.functional.cross_entropy(logits, tokens[0, start + 1 : end + 1], reduction="sum"))
        count += end - start
    print(json.dumps({"nll": total / count, "count": count, "tokens": every.shape[1]}))


if __name__ == "__main__":
    main()
