"""The text that needles are hidden in: validation documents, since RULER's essays can't be shipped."""

import re
from dataclasses import dataclass
from typing import Any, Self

from longrecipe_core.corpus import TokenShards
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import EvaluationError

SENTENCE_END = re.compile(r"(?<=[.!?]) ")


@dataclass(frozen=True)
class Haystack:
    """Words of documents, one document after the other."""

    words: tuple[str, ...]

    @classmethod
    def of_documents(cls, shards: TokenShards, tokenizer: Any, tokens: int, seed: int) -> Self:
        """Documents in random order, at least `tokens` tokens of them where there are so many; blanks are one space.

        Raises:
            EvaluationError: There is no word in them.
        """
        words: list[str] = []
        for row in generator(seed, "haystack").permutation(len(shards)):
            if tokens <= 0:
                break
            ids = shards.input_ids(int(row))
            words += tokenizer.decode(ids.tolist(), skip_special_tokens=True).split()
            tokens -= len(ids)
        if not words:
            raise EvaluationError(
                "the validation documents hold no text to hide needles in; haystack: noise needs none"
            )
        return cls(tuple(words))

    def sentences(self, size: int) -> list[str]:
        """The first `size` words, in sentences; where there are fewer, they begin again."""
        times = -(-size // len(self.words))
        return SENTENCE_END.split(" ".join((self.words * times)[:size]))
