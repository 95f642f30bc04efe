"""Differences of logits, by token type, without a `[tokens, vocabulary]` matrix (paper, section 4.1, Eq. 3)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from longrecipe_core.errors import ModelError
from longrecipe_core.scoring.models import ScoredModel

Ints = npt.NDArray[np.int64]

TOKENS_PER_FORWARD = 16_384


@dataclass
class TypeSums:
    """What is known of each vocabulary entry so far; arrays `[vocabulary]`."""

    vocabulary: int
    score: npt.NDArray[np.float64] = field(init=False)
    count: Ints = field(init=False)
    top: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.score = np.zeros(self.vocabulary, dtype=np.float64)
        self.count = np.zeros(self.vocabulary, dtype=np.int64)
        self.top = np.zeros(self.vocabulary, dtype=np.int64)

    def add(self, tokens: Ints, difference: npt.NDArray[np.float64], in_top: npt.NDArray[np.bool_]) -> None:
        """Occurrences of the types `tokens`, arrays `[tokens]`, in this order, so that the sums are always the same."""
        np.add.at(self.score, tokens, difference)
        self.count += np.bincount(tokens, minlength=self.vocabulary)
        self.top += np.bincount(tokens[in_top], minlength=self.vocabulary)

    @property
    def share(self) -> npt.NDArray[np.float64]:
        """Of its occurrences, those in the top; 0 where there are none."""
        return self.top / np.maximum(self.count, 1)


@torch.no_grad()
def add_differences(
    sums: TypeSums,
    extended: ScoredModel,
    extended_hidden: torch.Tensor,
    base: ScoredModel,
    base_hidden: torch.Tensor,
    targets: torch.Tensor,
    *,
    top: int,
    chunk: int,
) -> None:
    """Add each target's logit under `extended_hidden` less that under `base_hidden`, and whether it is in the top.

    Logits of `chunk` tokens exist at one time, on the device of `extended`.

    Args:
        sums: Are added to.
        extended: H', or the model of the long context.
        extended_hidden: `[tokens, hidden]`, of the token before each target.
        base: H, or the model of the short context.
        base_hidden: `[tokens, hidden]`, likewise.
        targets: int64 `[tokens]`, the tokens that stand there.
        top: A target is in the top where fewer than so many entries have a strictly greater difference.
        chunk: Tokens.

    Raises:
        ModelError: A difference is not finite.
    """
    for start in range(0, len(targets), chunk):
        part = slice(start, start + chunk)
        there = targets[part].to(extended.device)
        difference = extended.logits(extended_hidden[part]) - base.logits(base_hidden[part]).to(extended.device)
        own = difference.gather(1, there[:, None])
        if not torch.isfinite(own).all():
            raise ModelError("a difference of logits is not finite: the weights of one of the models are broken")
        in_top = (difference > own).sum(dim=1) < top
        sums.add(targets[part].cpu().numpy(), own[:, 0].double().cpu().numpy(), in_top.cpu().numpy())


def short_hidden(model: ScoredModel, input_ids: torch.Tensor, short_length: int) -> torch.Tensor:
    """Last hidden states whose context is truncated, for the targets from place `short_length + 1` on.

    Windows of `short_length` tokens begin at 0, h, 2h, …, with h = short_length // 2, and see nothing before. Of each
    but the first, the last h hidden states are taken, so that a target is predicted from between
    `short_length - h + 1` and `short_length` tokens. Up to place `short_length` the context would be whole: these
    targets have no difference and are left out.

    Args:
        model: On its device.
        input_ids: int64 `[length]`, at least `short_length + 2`.
        short_length: Tokens, 2 or more.

    Returns:
        `[length - 1 - short_length, hidden]`.
    """
    half = short_length // 2
    targets = len(input_ids) - 1 - short_length
    windows = -(-targets // half)
    # The last window may reach past the end. Padding stands behind, where causal attention lets it change nothing.
    padded = torch.nn.functional.pad(input_ids, (0, max(0, windows * half + short_length - len(input_ids))))
    parts = [
        model.hidden(batch)[:, short_length - half :].flatten(0, 1) for batch in _windows(padded, short_length, windows)
    ]
    return torch.cat(parts)[:targets]


def _windows(padded: torch.Tensor, short_length: int, windows: int) -> Iterator[torch.Tensor]:
    """Windows 1, 2, … `windows` in batches, `[batch, short_length]`."""
    rows = padded.unfold(0, short_length, short_length // 2)[1 : windows + 1]
    batch = max(1, TOKENS_PER_FORWARD // short_length)
    for start in range(0, windows, batch):
        yield rows[start : start + batch].contiguous()
