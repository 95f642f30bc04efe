"""Copies of a text, and texts that are nearly the same (MinHash).

Broder 1997, "On the resemblance and containment of documents": the share of equal slots in two MinHash
signatures estimates the Jaccard similarity of two sets, here of the 5-grams of words. The signatures and the
search for candidates (locality-sensitive hashing) are rensa's.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Deduplicate = Literal["none", "exact", "near"]

WORDS = 5
# At a similarity of 0.8 the estimate's standard deviation is √(0.8 · 0.2 / 256) = 0.025.
SLOTS = 256
_SEED = 1
_MISSED = 0.01  # share of the pairs exactly at the threshold that the search for candidates may miss


def signature(text: str) -> Any:
    """The MinHash signature of a text's word 5-grams (a `rensa.RMinHash`), or None below five words.

    A word is what stands between white space, as it is written. Takes some 100 to
    200 bytes per word while it works, and gives 1.3 kB.
    """
    from rensa import RMinHash

    words = text.split()
    if len(words) < WORDS:
        return None
    hashes = np.array(RMinHash.hash_token_sets([words])[0], dtype=np.uint64)
    result = RMinHash(num_perm=SLOTS, seed=_SEED)
    result.update(_grams(hashes).astype("<u8").view("V8").tolist())
    return result


def _grams(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One 64-bit number per run of five words, which depends on their order."""
    count = len(words) - WORDS + 1
    mixed = np.zeros(count, dtype=np.uint64)
    for place in range(WORDS):
        mixed ^= words[place : place + count]
        mixed *= np.uint64(0x9E3779B97F4A7C15)  # odd, so that nothing is lost
        mixed ^= mixed >> np.uint64(29)
    return mixed


class Deduplicator:
    """Tells which documents came before; the first one in reading order stays.

    Memory per kept document: about 100 bytes for `exact`; for `near` at similarity 0.8 another 4.5 kB, at 0.3 14 kB,
    below 0.19 27 kB (measured).

    Args:
        kind: `none` tells nothing.
        similarity: `near`: estimated Jaccard similarity from which two texts are one, above 0 and below 1.
    """

    def __init__(self, kind: Deduplicate, similarity: float) -> None:
        self._kind = kind
        # 128 of the digest's bits: two texts that share them are not to be expected among 10¹⁵ documents.
        self._seen: set[bytes] = set()
        self._near: Any = None
        if kind == "near":
            from rensa import RMinHashDeduplicator

            self._near = RMinHashDeduplicator(
                threshold=similarity, num_perm=SLOTS, use_lsh=True, num_bands=bands(similarity), seed=_SEED
            )

    def reason(self, document_id: str, signature: Any) -> str | None:
        """`duplicate`, `near_duplicate`, or None for a new document, which is then remembered.

        A candidate of the search counts only where the two whole signatures agree in a share of their slots of
        the similarity or more.
        """
        if self._kind == "none":
            return None
        key = bytes.fromhex(document_id[:32])
        if key in self._seen:
            return "duplicate"
        if self._near is not None and signature is not None and not self._near.add(document_id, signature):
            return "near_duplicate"
        self._seen.add(key)
        return None


def bands(similarity: float) -> int:
    """Into how many bands a signature is cut: the fewest, so the least memory, that find a pair.

    Two signatures become candidates when all slots of one band agree, which with `b` bands of `r` slots has
    probability 1 − (1 − sʳ)ᵇ at a similarity of s (Leskovec et al., "Mining of Massive Datasets", section 3.4).
    """
    for count in (8, 16, 32, 64, 128):
        if (1 - similarity ** (SLOTS // count)) ** count <= _MISSED:
            return count
    return SLOTS
