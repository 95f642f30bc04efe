"""Token ids of another tokenizer back to text, with a check that it was that tokenizer that made them."""

from collections import Counter
from typing import Any

from longrecipe_core.corpus.bad_data import BadRowError
from longrecipe_core.corpus.tokenizer import load_tokenizer, tokenizer_place

# Ids that are looked at of each row, and how few are too few to tell.
_JUDGED = 1000
_LEAST_JUDGED = 32
# Ids that may differ: two, for words cut at the ends, and this share. Measured with tokenizers of 512 to 49,152
# entries on source code: of rows made by the named tokenizer and begun anywhere, also inside a character,
# at least 0.998 agreed at 1,000 ids, 0.97 at 100 and 0.93 at 32. Of those made by another, 0.06 to 0.96 did at
# 1,000, half of them below 0.85 for unlike tokenizers and 0.9 for two trained on like text.
_MAY_DIFFER = 0.05
_ENDS = 2
_REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are no character


class ForeignDecoder:
    """Decodes rows of ids of the tokenizer that a source names.

    Raises:
        CorpusError: that tokenizer can't be loaded.
    """

    def __init__(self, name: str, trust_remote_code: bool = False) -> None:
        self._name = name
        self._tokenizer = load_tokenizer(tokenizer_place(name), trust_remote_code)
        self._size = len(self._tokenizer)
        self._special = set(self._tokenizer.all_special_ids)

    def text(self, ids: Any, place: str) -> str | None:
        """The text of one row, without special tokens; None for null.

        Raises:
            BadRowError: `wrong_type`, `outside_vocabulary`, or `other_tokenizer` where the ids' text, encoded
                again, gives other ids.
        """
        if ids is None:
            return None
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise BadRowError(
                "wrong_type", f"{place}: a list of token ids expected, not {type(ids).__name__} of other things"
            )
        if ids and not (min(ids) >= 0 and max(ids) < self._size):
            raise BadRowError(
                "outside_vocabulary",
                f"{place}: ids {min(ids)}..{max(ids)}, but tokenizer {self._name} has 0..{self._size - 1}",
            )
        self._check(ids[:_JUDGED], place)
        return self._decode(ids)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _check(self, ids: list[int], place: str) -> None:
        """Compare the ids, as multisets, with those that their text gives."""
        given: Counter[int] = Counter()
        again: Counter[int] = Counter()
        for piece in self._pieces(ids):
            whole = self._without_cut_characters(piece)
            given.update(whole)
            again.update(self._tokenizer.encode(self._decode(whole), add_special_tokens=False))
        for special in self._special:
            del again[special]
        count = max(given.total(), again.total())
        same = (given & again).total()
        if given.total() >= _LEAST_JUDGED and count - same > _ENDS + _MAY_DIFFER * count:
            raise BadRowError(
                "other_tokenizer",
                f"{place}: made by another tokenizer than {self._name}, it seems: of {count} ids only "
                f"{same / count:.0%} come back when their text is encoded again; name the tokenizer that made them",
            )

    def _pieces(self, ids: list[int]) -> list[list[int]]:
        """What stands between special tokens: documents that were laid end to end were encoded apart."""
        pieces: list[list[int]] = [[]]
        for token in ids:
            if token in self._special:
                pieces.append([])
            else:
                pieces[-1].append(token)
        return [piece for piece in pieces if piece]

    def _without_cut_characters(self, ids: list[int]) -> list[int]:
        """A window can begin or end inside a character, whose other bytes are up to three ids."""
        for _ in range(3):
            if self._decode(ids[:8]).startswith(_REPLACEMENT):
                ids = ids[1:]
            if self._decode(ids[-8:]).endswith(_REPLACEMENT):
                ids = ids[:-1]
        return ids
