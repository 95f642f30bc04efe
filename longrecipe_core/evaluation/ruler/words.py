"""Common and frequent words: what a long list holds most often.

Templates, counts and distribution are those of RULER (Hsieh et al. 2024, arXiv 2404.06654, section 3.3 and appendix B;
NVIDIA/RULER, Apache-2.0: scripts/data/synthetic/common_words_extraction.py, freq_words_extraction.py, constants.py).
"""

import string
from collections.abc import Iterable
from dataclasses import dataclass
from math import pi

import numpy as np

from longrecipe_core.evaluation.ruler.prompts import Draft
from longrecipe_core.evaluation.ruler.vocabulary import adjectives, nouns, words

COMMON = (
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
    "appear most often.\n{context}\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 "
    "words that appear most often in the list are:"
)
FREQUENT = (
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
    "coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the "
    "three most frequently appeared words in the above coded text? Answer: According to the coded text above, the "
    "three most frequently appeared words are:"
)
SHORT = 4096
"""Tokens; below, words repeat less often."""
ZETA_2 = pi**2 / 6


@dataclass(frozen=True)
class CommonWords:
    """Ten words stand 30 times in a list, all others three times; a solved short list comes first."""

    name: str = "cwe"
    common: int = 10
    new_tokens: int = 120

    @property
    def least(self) -> int:
        """Different words: one that is not common."""
        return self.common + 1

    def draft(self, size: int, length: int, sample: int, rng: np.random.Generator) -> Draft:
        """See `prompts.Task`; `size` counts different words."""
        short = length < SHORT
        example, solution = self._list(*((20, 3, 1) if short else (40, 10, 3)), rng)
        listed, answers = self._list(size, *((6, 1) if short else (30, 3)), rng)
        text = f"{COMMON.format(context=example)}{numbered(solution)}\n{COMMON.format(context=listed)}"
        return Draft(text, answers)

    def _list(self, size: int, often: int, seldom: int, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
        known = words()
        # As many as wanted: adjective-noun pairs where the lists have no more words.
        pairs = (f"{adjective}-{noun}" for noun in nouns() for adjective in adjectives())
        pool = [*known, *(next(pairs) for _ in range(size - len(known)))]
        drawn = [pool[at] for at in rng.choice(len(pool), size, replace=False)]
        entries = drawn[: self.common] * often + drawn[self.common :] * seldom
        return numbered(entries[at] for at in rng.permutation(len(entries))), tuple(drawn[: self.common])


@dataclass(frozen=True)
class FrequentWords:
    """Words of six letters, the k-th most frequent in proportion to k⁻²; the very first is dots, to be ignored."""

    name: str = "fwe"
    letters: int = 6
    new_tokens: int = 50

    @property
    def least(self) -> int:
        """Words: so many that the fourth stands out from the fifth."""
        return 100

    def draft(self, size: int, length: int, sample: int, rng: np.random.Generator) -> Draft:
        """See `prompts.Task`; `size` counts words, before counts are rounded down."""
        kinds = max(5, length // 50)
        letters = np.array(list(string.ascii_lowercase))
        coded = dict.fromkeys("".join(row) for row in rng.choice(letters, (kinds + 8, self.letters)))
        vocabulary = ["...", *list(coded)[: kinds - 1]]
        counts = (size * np.arange(1, kinds + 1) ** -2.0 / ZETA_2).astype(int)
        entries = [word for word, count in zip(vocabulary, counts, strict=True) for _ in range(count)]
        context = " ".join(entries[at] for at in rng.permutation(len(entries)))
        return Draft(FREQUENT.format(context=context), tuple(vocabulary[1:4]))


def numbered(entries: Iterable[str]) -> str:
    """`1. one 2. two`."""
    return " ".join(f"{number}. {entry}" for number, entry in enumerate(entries, start=1))
