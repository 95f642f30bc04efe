"""Which documents a corpus keeps: by their length, and the first of those that are the same."""

from dataclasses import dataclass
from typing import Self

from longrecipe_core.corpus.deduplication import Deduplicate, Deduplicator
from longrecipe_core.corpus.encoding import Encoded
from longrecipe_core.recipe.sections import CorpusSection

_LEAST_TRAINABLE = 2  # a token is learnt from the one before it


@dataclass(frozen=True)
class Filters:
    """What `CorpusSection` says about it; lengths in tokens as stored, BOS included."""

    minimum_tokens: int | None = None
    maximum_tokens: int | None = None
    deduplicate: Deduplicate = "none"
    similarity: float = 0.8

    @classmethod
    def of(cls, section: CorpusSection) -> Self:
        """The filters of a recipe's section."""
        return cls(section.minimum_tokens, section.maximum_tokens, section.deduplicate, section.similarity)


class Filter:
    """The filters at work on one corpus; it remembers what it has seen."""

    def __init__(self, filters: Filters) -> None:
        self._least = max(filters.minimum_tokens or 0, _LEAST_TRAINABLE)
        self._most = filters.maximum_tokens
        self._copies = Deduplicator(filters.deduplicate, filters.similarity)

    def reason(self, document: Encoded) -> str | None:
        """Why a document is skipped, or None. Documents must come in reading order."""
        tokens = len(document.input_ids)
        if tokens < self._least:
            return "too_short"
        if self._most is not None and tokens > self._most:
            return "too_long"
        return self._copies.reason(document.document_id, document.signature)
