"""Prompts of an asked length: the text around the needles grows until nothing more fits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from longrecipe_core.corpus.arrow_shards import Int32Array
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.errors import EvaluationError


@dataclass(frozen=True)
class Draft:
    """A prompt as text, and the strings that an answer is searched for."""

    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model gets it: int32 ids `[tokens]`, and how many tokens it may answer with."""

    input_ids: Int32Array
    answers: tuple[str, ...]
    new_tokens: int


class Task(Protocol):
    """What a task says of itself; `size` counts what its haystack is made of, such as sentences, words, documents."""

    @property
    def name(self) -> str:
        """As in the table."""

    @property
    def new_tokens(self) -> int:
        """Most tokens of an answer."""

    @property
    def least(self) -> int:
        """Smallest size."""

    def draft(self, size: int, length: int, sample: int, rng: np.random.Generator) -> Draft:
        """The prompt with a haystack of that size; `length`, in tokens, is what the size was chosen for."""


def prompts(task: Task, encoder: Encoder, length: int, samples: int, seed: int) -> Iterator[Prompt]:
    """Prompts that, with an answer of `task.new_tokens`, are at most `length` tokens long, and nearly so.

    The largest size that fits is found for the first; a later one takes it too, or the largest below that fits it.

    Raises:
        EvaluationError: The smallest haystack doesn't fit.
    """
    most: int | None = None
    for sample in range(samples):

        def draft(size: int, sample: int = sample) -> Draft:
            # The same draws for every size: else the search would compare different prompts.
            return task.draft(size, length, sample, generator(seed, "prompts", task.name, length, sample))

        size, prompt = fit(draft, encoder, task, length, most)
        most = most or size
        yield prompt


def fit(
    draft: Callable[[int], Draft], encoder: Encoder, task: Task, length: int, most: int | None
) -> tuple[int, Prompt]:
    """The largest size up to `most` (None: any) whose prompt fits, by bisection, and that prompt.

    Raises:
        EvaluationError: The smallest doesn't fit.
    """

    def encoded(size: int) -> Prompt:
        made = draft(size)
        ids = np.concatenate([encoder.prefix, encoder.encode([made.text])[0]])
        return Prompt(ids, made.answers, task.new_tokens)

    def fits(prompt: Prompt) -> bool:
        return len(prompt.input_ids) + task.new_tokens <= length

    if most is not None and fits(best := encoded(most)):
        return most, best
    low, best = task.least, encoded(task.least)
    if not fits(best):
        raise EvaluationError(
            f"length {length} is too short for {task.name}: its smallest prompt and answer take "
            f"{len(best.input_ids) + task.new_tokens} tokens"
        )
    high = most
    while high is None or high - low > 1:
        middle = 2 * low if high is None else (low + high) // 2
        prompt = encoded(middle)
        if fits(prompt):
            low, best = middle, prompt
        else:
            high = middle
    return low, best
