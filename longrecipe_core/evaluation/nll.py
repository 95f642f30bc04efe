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
from longrecipe_core.recipe import EvaluationSection

Ints = npt.NDArray[np.int64]

TOKENS_PER_FORWARD = 16_384


def choose_documents(
    tokens: TokenShards, evaluation: EvaluationSection, target_length: int, seed: int
) -> tuple[Ints, Ints]:
    """The beginning, up to the target length, of at most `evaluation.documents` documents that are long enough.

    Returns:
        Token ids `[documents, target_length]`, padded with 0 at the end, and lengths `[documents]`; int64.

    Raises:
        EvaluationError: No document is long enough.
    """
    least = evaluation.minimum_length or target_length
    long_enough = np.flatnonzero(tokens.lengths >= least)
    if long_enough.size == 0:
        longest = int(tokens.lengths.max()) if len(tokens) else 0
        raise EvaluationError(
            f"none of {len(tokens)} validation documents has {least} tokens (the longest has {longest}): raise "
            f"corpus.validation_share, take longer documents, or set evaluation.minimum_length"
        )
    rows = np.sort(generator(seed, "evaluation documents").permutation(long_enough)[: evaluation.documents])
    lengths = np.minimum(tokens.lengths[rows], target_length)
    documents = np.zeros((rows.size, target_length), dtype=np.int64)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        documents[place, :length] = tokens.input_ids(int(row))[:length]
    return documents, lengths


@torch.no_grad()
def token_nll(model: Any, documents: Ints, lengths: Ints, *, bf16: bool, chunk: int) -> npt.NDArray[np.float64]:
    """-log p of every token but the first of each document, in nats; float64 `[documents, target_length - 1]`.

    Column `i` is the token at position `i + 1`; NaN where a document has ended. The
    model is used as transformers loads it, with its stock attention.
    """
    device = next(model.parameters()).device
    head = model.get_output_embeddings()
    options = LinearCrossEntropyOptions(batch_chunk_size=chunk)
    batch = max(1, TOKENS_PER_FORWARD // documents.shape[1])
    result = np.full((len(documents), documents.shape[1] - 1), np.nan)
    for start in range(0, len(documents), batch):
        width = int(lengths[start : start + batch].max())  # nothing is computed where no document reaches
        tokens = torch.from_numpy(documents[start : start + batch, :width]).to(device)
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
        result[start : start + batch, : width - 1] = nll.view(len(tokens), -1).double().cpu().numpy()
    ended = np.arange(1, documents.shape[1])[None, :] >= lengths[:, None]
    if not np.isfinite(result[~ended]).all():
        raise EvaluationError("the model's loss is not finite on a validation document: its weights are broken")
    # Padding stands at the end, where causal attention keeps it from changing anything before.
    result[ended] = np.nan
    return result


def bucket_rows(nll: npt.NDArray[np.float64], buckets: int, target_length: int) -> list[dict[str, float | int]]:
    """Mean over equal parts of the target length: start, end, mean, standard error over documents, token count.

    `nll` is `[documents, target_length - 1]`; NaN entries are left out, and so is a part with nothing else.
    """
    edges = np.linspace(0, target_length, buckets + 1).round().astype(int)
    rows: list[dict[str, float | int]] = []
    for start, end in pairwise(edges):
        part = nll[:, max(start, 1) - 1 : end - 1]  # column i is position i + 1
        if np.isfinite(part).any():  # else no document reaches that far
            rows.append({"start": int(start), "end": int(end)} | mean_row(part))
    return rows


def mean_row(nll: npt.NDArray[np.float64]) -> dict[str, float | int]:
    """Mean of all tokens, its standard error over documents, token count; NaN entries of `[documents, …]` don't count.

    Both are NaN where there is no entry, the error also for a single document.
    """
    counts = np.isfinite(nll).sum(axis=1)
    sums = np.nansum(nll, axis=1)[counts > 0]
    counts = counts[counts > 0]
    means = sums / counts
    return {
        "value": float(sums.sum() / counts.sum()) if counts.size else float("nan"),
        "standard_error": float(means.std(ddof=1) / means.size**0.5) if means.size > 1 else float("nan"),
        "count": int(counts.sum()),
    }
