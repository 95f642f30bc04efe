"""Negative log-likelihood by position, without logits (traps, 6)."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import linear_cross_entropy

from longrecipe_core.corpus import TokenShards
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import EvaluationError

TOKENS_PER_FORWARD = 16_384


def choose_documents(tokens: TokenShards, length: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """The first `length` tokens of at most `count` documents that have as many; int64 `[documents, length]`.

    Raises:
        EvaluationError: No document is long enough.
    """
    long_enough = np.flatnonzero(tokens.lengths >= length)
    if long_enough.size == 0:
        longest = int(tokens.lengths.max()) if len(tokens) else 0
        raise EvaluationError(
            f"none of {len(tokens)} validation documents has the {length} tokens of the target length (the longest has "
            f"{longest}): raise corpus.validation_share or take longer documents"
        )
    rows = np.sort(generator(seed, "evaluation documents").permutation(long_enough)[:count])
    return np.stack([tokens.input_ids(int(row))[:length] for row in rows]).astype(np.int64)


@torch.no_grad()
def token_nll(model: Any, documents: npt.NDArray[np.int64], *, bf16: bool, chunk: int) -> npt.NDArray[np.float64]:
    """-log p of every token but the first of each document, in nats; float64 `[documents, length - 1]`.

    Column `i` is the token at position `i + 1`. The model is used as transformers loads it, with its stock attention.
    """
    device = next(model.parameters()).device
    head = model.get_output_embeddings()
    options = LinearCrossEntropyOptions(batch_chunk_size=chunk)
    batch = max(1, TOKENS_PER_FORWARD // documents.shape[1])
    rows = []
    for start in range(0, len(documents), batch):
        tokens = torch.from_numpy(documents[start : start + batch]).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        nll = linear_cross_entropy(
            hidden[:, :-1].flatten(0, 1).to(head.weight.dtype),
            head.weight,
            tokens[:, 1:].flatten(),
            linear_bias=head.bias,
            reduction="none",
            options=options,
        )
        rows.append(nll.view(len(tokens), -1).double().cpu().numpy())
    return np.concatenate(rows)


def bucket_rows(nll: npt.NDArray[np.float64], buckets: int, target_length: int) -> list[dict[str, float | int]]:
    """Mean over equal parts of the target length: start, end, mean, standard error over documents, token count."""
    edges = np.linspace(0, target_length, buckets + 1).round().astype(int)
    rows: list[dict[str, float | int]] = []
    for start, end in pairwise(edges):
        part = nll[:, max(start, 1) - 1 : end - 1]  # column i is position i + 1
        means = part.mean(axis=1)
        error = float(means.std(ddof=1) / len(means) ** 0.5) if len(means) > 1 else float("nan")
        rows.append(
            {
                "start": int(start),
                "end": int(end),
                "value": float(part.mean()),
                "standard_error": error,
                "count": int(part.size),
            }
        )
    return rows
