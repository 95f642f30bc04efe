"""Where sentences end, told from the tokenizer in use and never from fixed ids (paper.md, mistake 5)."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.errors import IndexingError

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TokenClasses:
    """Two facts about every vocabulary entry, as bool `[vocabulary]`, and the id that begins every document.

    A sentence that holds an `anchor` is an anchor sentence.
    """

    ends_sentence: Flags
    anchor: Flags
    bos: int | None = None


def token_classes(tokenizer: Any, sentence_ends: str = ".!?\n", anchors: Flags | None = None) -> TokenClasses:
    r"""Decode every vocabulary entry by itself and look at its text.

    A token ends a sentence when one of `sentence_ends` stands in it and no letter or digit comes after, so that
    `.`, `.\n`, `."` and `\n    ` do and `.com` and `3.14` don't; a newline does wherever it stands. Special tokens
    never do. An end whose UTF-8 bytes are split over several tokens is not seen.

    Args:
        tokenizer: A transformers tokenizer.
        sentence_ends: The characters.
        anchors: bool `[vocabulary]`, as `impact.anchor_tokens` gives them; entries with a digit when not given. It
            may be longer than the tokenizer, as a padded embedding is, where nothing behind its end is an anchor.

    Raises:
        IndexingError: `anchors` is of another vocabulary.
    """
    size = len(tokenizer)
    if anchors is not None and (anchors.size < size or anchors[size:].any()):
        raise IndexingError(
            f"the impact table has {anchors.size} vocabulary entries, the tokenizer {size}: the table is of another "
            f"tokenizer; run stage score again with this one"
        )
    texts = tokenizer.batch_decode([[i] for i in range(size)], clean_up_tokenization_spaces=False)
    last = re.compile(rf"[{re.escape(sentence_ends)}]\W*\Z")
    newline = "\n" in sentence_ends
    # Reserved ones (Llama 3's <|reserved_special_token_0|>) have no role, so all_special_ids lacks them.
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    ends = [i not in special and bool(last.search(text) or (newline and "\n" in text)) for i, text in enumerate(texts)]
    if anchors is None:
        digits = [i not in special and any(c.isdigit() for c in text) for i, text in enumerate(texts)]
        anchors = np.array(digits, dtype=bool)
    return TokenClasses(np.array(ends, dtype=bool), anchors[:size], tokenizer.bos_token_id)


def sentence_starts(input_ids: npt.NDArray[Any], ends_sentence: Flags) -> npt.NDArray[np.int64]:
    """First token of each sentence: 0, and wherever the token before ends one and this one doesn't go on ending it.

    A run of enders (`.` then `\\n`, or `...`) closes one sentence, not several of one token.

    Args:
        input_ids: Whole numbers `[tokens]`, at least one.
        ends_sentence: bool `[vocabulary]`.

    Returns:
        int64 `[sentences]`, the first 0, strictly increasing.
    """
    ends = ends_sentence.take(input_ids)  # twice as fast as an index
    starts = np.flatnonzero(ends[:-1] > ends[1:]) + 1
    return np.concatenate([[0], starts]).astype(np.int64)
