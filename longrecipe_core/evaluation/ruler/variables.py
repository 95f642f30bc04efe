"""Variable tracking: which variables are, through each other, assigned a value.

Templates and numbers are those of RULER (Hsieh et al. 2024, arXiv 2404.06654, section 3.2 and appendix B;
NVIDIA/RULER, Apache-2.0: scripts/data/synthetic/variable_tracking.py, constants.py).
"""

import string
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from longrecipe_core.evaluation.ruler.needles import NOISE
from longrecipe_core.evaluation.ruler.prompts import Draft
from longrecipe_core.evaluation.ruler.words import SHORT

TEXT = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: Find "
    "all variables that are assigned the value {value} in the text above. Answer: According to the chain(s) of "
    "variable assignment in the text above, {count} variables are assgined the value {value}, they are: "
)
"""Misspelt as it is published: what models are asked must be the same."""

EXAMPLE_LINES = 12
"""Of noise, about 500 tokens with the text around them; as few as can be in prompts shorter than `words.SHORT`."""


@dataclass(frozen=True)
class VariableTracking:
    """A chain of assignments in noise, after a solved example with names of three letters."""

    name: str = "vt"
    hops: int = 4
    new_tokens: int = 30

    @property
    def least(self) -> int:
        """Lines of noise: each assignment stands before another one."""
        return self.hops + 1

    def draft(self, size: int, length: int, sample: int, rng: np.random.Generator) -> Draft:
        """See `prompts.Task`; `size` counts lines of noise."""
        example, solution = self._chain(self.least if length < SHORT else EXAMPLE_LINES, 3, rng)
        text, names = self._chain(size, 5, rng)
        return Draft(f"{example} {' '.join(solution)}\n\n\n\n{text}", names)

    def _chain(self, lines: int, letters: int, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
        names: list[str] = []
        while len(names) <= self.hops:
            name = "".join(rng.choice(list(string.ascii_uppercase), letters))
            if name not in names:
                names.append(name)
        value = int(rng.integers(10_000, 99_999))
        assignments = [f"VAR {names[0]} = {value}"]
        assignments += [f"VAR {later} = VAR {earlier} " for earlier, later in pairwise(names)]
        context = [f"{NOISE}\n"] * lines
        for place, line in zip(
            sorted(rng.choice(lines, len(assignments), replace=False))[::-1], assignments[::-1], strict=True
        ):
            context.insert(int(place), line)
        return TEXT.format(context=" ".join(context), value=value, count=len(names)), tuple(names)
