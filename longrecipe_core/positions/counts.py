"""What selection kept of the documents, and from where: counts that add up over samples."""

from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from longrecipe_core.selection import Selected

Ints = npt.NDArray[np.int64]

PLACES = 20
"""Equal parts of a document, in which kept and read tokens are counted."""


def _none() -> Ints:
    return np.zeros(PLACES, dtype=np.int64)


@dataclass(frozen=True)
class Counts:
    """Sums over samples; sentences are those before the target length, and a leading BOS is not in any."""

    samples: int = 0
    runs: int = 0
    tokens_read: int = 0
    tokens_kept: int = 0
    sentences_read: int = 0
    sentences_kept: int = 0
    sentences_with_anchor: int = 0
    anchor_tokens: int = 0
    topped_up: int = 0
    read_by_place: Ints = field(default_factory=_none)
    kept_by_place: Ints = field(default_factory=_none)

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, name.name) + getattr(other, name.name) for name in fields(self)))

    @classmethod
    def of_sample(cls, selected: Selected, rows: Ints, read: int, document: int, runs: int) -> Self:
        """Counts of one sample.

        Args:
            selected: Its sentences.
            rows: Its tokens' places in the document, int64 `[tokens]`, rising.
            read: The document's tokens before the target length.
            document: All of the document's tokens, which the places are relative to.
            runs: Of the sample's row in the index.
        """
        edges = -(-np.arange(PLACES + 1) * document // PLACES)
        return cls(
            samples=1,
            runs=runs,
            tokens_read=read,
            tokens_kept=rows.size,
            sentences_read=selected.sentences_read,
            sentences_kept=selected.sentences_kept,
            sentences_with_anchor=selected.sentences_with_anchor,
            anchor_tokens=selected.anchor_tokens,
            topped_up=int(selected.topped_up),
            read_by_place=np.diff(np.minimum(edges, read)),
            kept_by_place=np.diff(np.searchsorted(rows, edges)),
        )

    def report(self) -> dict[str, Any]:
        """Key `selection` of the index's metrics; the two histograms are shares of the tokens, which sum to 1."""
        return {
            "tokens_kept": self.tokens_kept,
            "tokens_read": self.tokens_read,
            "share_kept": self.tokens_kept / self.tokens_read,
            "sentences_read": self.sentences_read,
            "sentences_kept": self.sentences_kept,
            "sentences_with_anchor": self.sentences_with_anchor,
            "anchor_share": self.anchor_tokens / self.tokens_kept,
            "topped_up": self.topped_up,
            "histogram": (self.kept_by_place / self.tokens_kept).round(6).tolist(),
            "histogram_available": (self.read_by_place / self.tokens_read).round(6).tolist(),
        }
