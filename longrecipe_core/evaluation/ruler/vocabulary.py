"""English words by the thousand: the lists of the package wonderwords, as RULER has them."""

from functools import cache
from importlib import resources

import numpy as np


@cache
def nouns() -> tuple[str, ...]:
    """In the order of the list."""
    return _read("noun")


@cache
def adjectives() -> tuple[str, ...]:
    """In the order of the list."""
    return _read("adjective")


@cache
def words() -> tuple[str, ...]:
    """Nouns, adjectives and verbs, each once, sorted."""
    return tuple(sorted({*nouns(), *adjectives(), *_read("verb")}))


def compound(rng: np.random.Generator) -> str:
    """An adjective and a noun with a hyphen between."""
    return f"{adjectives()[rng.integers(len(adjectives()))]}-{nouns()[rng.integers(len(nouns()))]}"


def _read(kind: str) -> tuple[str, ...]:
    text = (resources.files("wonderwords") / "assets" / f"{kind}list.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())
