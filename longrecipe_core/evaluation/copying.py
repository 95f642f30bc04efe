"""Copying: random tokens stand once, a distance further on they begin again, and the model is to go on with them."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from longrecipe_core.corpus.randomness import generator
from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.nll import TOKENS_PER_FORWARD
from longrecipe_core.recipe import CopyingSection
from longrecipe_core.recipe.copying import CUE

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Text:
    """What prompts are made of: validation documents, ids `[documents, length]` padded at the end, and their lengths.

    `prefix` is what the tokenizer puts in front of a text, `ids` those that a span is drawn from.
    """

    documents: Ints
    lengths: Ints
    prefix: Ints
    ids: Ints

    @classmethod
    def of(cls, documents: Ints, lengths: Ints, tokenizer: Any) -> Self:
        """For a model with this tokenizer, which made the documents' ids; spans have none of its special tokens."""
        prefix = Encoder(tokenizer).prefix.astype(np.int64)
        special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        return cls(documents, lengths, prefix, np.setdiff1d(np.arange(len(tokenizer)), list(special)))

    def prompts(self, section: CopyingSection, distance: int, seed: int) -> Ints:
        """Ids `[samples, prefix + span + distance + span]`: a span, `distance` tokens of a document, the span again.

        A span's tokens are drawn one by one, each of the vocabulary alike, so that only the span tells what comes next.

        Raises:
            EvaluationError: No document has `distance` tokens.
        """
        long_enough = np.flatnonzero(self.lengths >= distance)
        _check_documents(distance, int(self.lengths.max()))
        rows = []
        for sample in range(section.samples):
            rng = generator(seed, "copying", distance, sample)
            span = rng.choice(self.ids, size=section.span)
            row = int(rng.choice(long_enough))
            start = int(rng.integers(self.lengths[row] - distance + 1))
            rows.append(np.concatenate([self.prefix, span, self.documents[row, start : start + distance], span]))
        return np.stack(rows).astype(np.int64)


def check_copying(section: CopyingSection, prefix: int, target_length: int, longest: int) -> None:
    """Raise EvaluationError where a prompt, with `prefix` tokens of the tokenizer's own, is above the target length, or
    a distance above the `longest` document's tokens.
    """
    _check_documents(max(section.distances), longest)
    length = prefix + section.length
    if length > target_length:
        raise EvaluationError(
            f"evaluation.copying: distance {max(section.distances)} and two spans of {section.span} make a prompt of "
            f"{length} tokens, above the target length {target_length}"
        )


def _check_documents(distance: int, longest: int) -> None:
    if distance > longest:
        raise EvaluationError(
            f"copying at distance {distance}: no validation document has so many tokens (the longest has {longest}): "
            f"take shorter distances or longer documents"
        )


@torch.no_grad()
def copied_shares(
    model: Any, text: Text, section: CopyingSection, distance: int, *, seed: int, bf16: bool
) -> npt.NDArray[np.float64]:
    """Of each sample, the share of the copy's tokens, without the first `CUE`, that greedy decoding gives; `[samples]`.

    One forward pass over the whole prompt: a token counts where it is the most likely one after the true ones before
    it. The cue is what tells that something is copied, and from where.

    Raises:
        EvaluationError: No document is long enough.
    """
    device = next(model.parameters()).device
    prompts: torch.Tensor = torch.from_numpy(text.prompts(section, distance, seed))
    asked = section.span - CUE
    result = []
    for batch in torch.split(prompts, max(1, TOKENS_PER_FORWARD // prompts.shape[1])):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            hidden = model.base_model(input_ids=batch.to(device), use_cache=False).last_hidden_state
            logits = model.get_output_embeddings()(hidden[:, -asked - 1 : -1])
        right = logits.argmax(-1).cpu() == batch[:, -asked:]
        result.append(right.double().mean(dim=1).numpy())
    return np.concatenate(result)


def copying_row(shares: npt.NDArray[np.float64], distance: int) -> dict[str, float | int]:
    """Start and end (the distance), mean over samples, its standard error, number of samples."""
    return {
        "start": distance,
        "end": distance,
        "value": float(shares.mean()),
        "standard_error": float(shares.std(ddof=1) / shares.size**0.5),
        "count": int(shares.size),
    }
