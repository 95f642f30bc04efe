"""One way to draw random numbers: the same bytes whatever the number of workers or the order of the work."""

import hashlib
import operator

import numpy as np

_WORD = 1 << 32
_LARGEST = 1 << 64


def generator(seed: int, *words: int | str) -> np.random.Generator:
    """A generator for one purpose: `Generator(Philox(SeedSequence([seed, *words, count])))`.

    A whole number (0 to 2⁶⁴ − 1) enters as two 32-bit words, low first; a string as the first four big-endian
    32-bit words of the sha256 of its UTF-8 bytes. The count of arguments closes the list, because
    SeedSequence pads with zeros and would take `(1,)` and `(1, 0)` for the same.

    Raises:
        ValueError: a number outside that range.
        TypeError: a word that is neither a whole number nor a string.
    """
    entropy: list[int] = []
    for word in (seed, *words):
        entropy.extend(_entropy(word))
    # An array, which is read four times as fast as a list of the same words.
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence(np.array([*entropy, 1 + len(words)], dtype=np.uint32)))
    )


def _entropy(word: int | str) -> list[int]:
    if isinstance(word, str):
        digest = hashlib.sha256(word.encode("utf-8")).digest()
        return [int.from_bytes(digest[start : start + 4], "big") for start in range(0, 16, 4)]
    number = operator.index(word)
    if not 0 <= number < _LARGEST:
        raise ValueError(f"a seed or word of {number} is outside 0..{_LARGEST - 1}")
    return [number % _WORD, number // _WORD]
