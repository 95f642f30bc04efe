"""Needles in a haystack: sentences with a key and a value, hidden in a long text and asked for by key.

Templates, kinds of needles and depths are those of RULER (Hsieh et al. 2024, arXiv 2404.06654, section 3.1 and
appendix B; NVIDIA/RULER, Apache-2.0: scripts/data/synthetic/niah.py, constants.py), without which scores would not
compare.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from longrecipe_core.evaluation.ruler.haystack import Haystack
from longrecipe_core.evaluation.ruler.prompts import Draft
from longrecipe_core.evaluation.ruler.vocabulary import compound

NEEDLE = "One of the special magic {kind}s for {key} is: {value}."
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
ONE = (
    "A special magic {kind} is hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "{kind} afterwards.\n{context}\nWhat is the special magic {kind} for {query} mentioned in the provided text? "
    "The special magic {kind} for {query} mentioned in the provided text is"
)
SEVERAL = (
    "Some special magic {kind}s are hidden within the following text. Make sure to memorize it. I will quiz you about "
    "the {kind}s afterwards.\n{context}\nWhat are all the special magic {kind}s for {query} mentioned in the provided "
    "text? The special magic {kind}s for {query} mentioned in the provided text are"
)
DEPTHS = np.linspace(0, 100, 40).round().astype(int)
"""Percent; each needle has one of its own."""


@dataclass(frozen=True)
class Needles:
    """A retrieval task.

    Attributes:
        name: As in the table.
        text: The documents to hide needles in; `noise`: one line again and again; `needles`: other needles.
        key: Kind of the keys.
        value: Kind of the values.
        keys: Keys in the text, at least those asked for.
        values: Needles, each with its value, per key.
        queries: Keys that are asked for.
        depth: Where the needle that is asked for stands, 0 to 1; None draws it, as the others'.
        new_tokens: Most tokens of an answer.
    """

    name: str
    text: Haystack | Literal["noise", "needles"] = field(repr=False)
    key: Literal["word", "uuid"] = "word"
    value: Literal["number", "uuid"] = "number"
    keys: int = 1
    values: int = 1
    queries: int = 1
    depth: float | None = None
    new_tokens: int = 128

    @property
    def least(self) -> int:
        """Lines, or words of the documents: as many lines as there are needles."""
        return self.keys * self.values

    def draft(self, size: int, length: int, sample: int, rng: np.random.Generator) -> Draft:
        """See `prompts.Task`; `size` counts lines, or words of the documents."""
        keys = [make(self.key, rng) for _ in range(self.keys)]
        values = [[make(self.value, rng) for _ in range(self.values)] for _ in keys]
        asked = [int(row) for row in rng.permutation(self.keys)[: self.queries]]
        needles = [(row, self._sentence(key, value)) for row, key in enumerate(keys) for value in values[row]]
        needles = [needles[at] for at in rng.permutation(len(needles))]
        units, joint = self._haystack(size, rng)
        places = self._places(len(units), [row in asked for row, _ in needles], rng)
        for place, (_, sentence) in sorted(zip(places, needles, strict=True), reverse=True):
            units.insert(place, sentence)
        chosen = [keys[row] for row in asked]
        text = (ONE if self.queries * self.values == 1 else SEVERAL).format(
            kind=self.value,
            context=joint.join(units),
            query=", ".join(chosen[:-1]) + f", and {chosen[-1]}" if len(chosen) > 1 else chosen[0],
        )
        return Draft(text, tuple(value for row in asked for value in values[row]))

    def _sentence(self, key: str, value: str) -> str:
        return NEEDLE.format(kind=self.value, key=key, value=value)

    def _haystack(self, size: int, rng: np.random.Generator) -> tuple[list[str], str]:
        """Sentences or lines, and what joins them."""
        if isinstance(self.text, Haystack):
            return self.text.sentences(size), " "
        if self.text == "noise":
            return [NOISE] * size, "\n"
        return [self._sentence(make(self.key, rng), make(self.value, rng)) for _ in range(size)], "\n"

    def _places(self, units: int, asked: Sequence[bool], rng: np.random.Generator) -> list[int]:
        """Per needle, before which sentence or line it goes."""
        if isinstance(self.text, Haystack):
            drawn = units * rng.choice(DEPTHS, len(asked), replace=False) // 100
        else:
            drawn = rng.choice(units, len(asked), replace=False)
        fixed = None if self.depth is None else round(self.depth * units)
        return [int(place) if fixed is None or not own else fixed for place, own in zip(drawn, asked, strict=True)]


def make(kind: str, rng: np.random.Generator) -> str:
    """A word (adjective-noun), a number of seven digits, or a version 4 UUID."""
    if kind == "word":
        return compound(rng)
    if kind == "number":
        return str(rng.integers(10**6, 10**7))
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))
