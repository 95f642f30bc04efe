"""Where sentences end, told from the tokenizer in use and never from fixed ids (paper.md, mistake 5)."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TokenClasses:
    """Two facts about every vocabulary entry, as bool `[vocabulary]`, and the id that begins every document."""

    ends_sentence: npt.NDArray[np.bool_]
    has_digit: npt.NDArray[np.bool_]
    bos: int | None = None


def token_classes(tokenizer: Any, sentence_ends: str = ".!?\n") -> TokenClasses:
    r"""Decode every vocabulary entry by itself and look at its text.

    A token ends a sentence when one of `sentence_ends` stands in it and no letter or digit comes after, so that
    `.`, `.\n`, `."` and `\n    ` do and `.com` and `3.14` don't; a newline does wherever it stands. Special tokens
    never do. An end whose UTF-8 bytes are split over several tokens is not seen.

    Args:
        tokenizer: A transformers tokenizer.
        sentence_ends: The characters.
    """
    size = len(tokenizer)
    texts = tokenizer.batch_decode([[i] for i in range(size)], clean_up_tokenization_spaces=False)
    last = re.compile(rf"[{re.escape(sentence_ends)}]\W*\Z")
    newline = "\n" in sentence_ends
    # Reserved ones (Llama 3's <|reserved_special_token_0|>) have no role, so all_special_ids lacks them.
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    ends = [i not in special and bool(last.search(text) or (newline and "\n" in text)) for i, text in enumerate(texts)]
    digits = [i not in special and any(c.isdigit() for c in text) for i, text in enumerate(texts)]
    return TokenClasses(np.array(ends, dtype=bool), np.array(digits, dtype=bool), tokenizer.bos_token_id)


def sentence_starts(input_ids: npt.NDArray[Any], ends_sentence: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """First token of each sentence: 0, and wherever the token before ends one and this one doesn't go on ending it.

    A run of enders (`.` then `\\n`, or `...`) closes one sentence, not several of one token.

    Args:
        input_ids: Whole numbers `[tokens]`, at least one.
        ends_sentence: bool `[vocabulary]`.

    Returns:
        int64 `[sentences]`, the first 0, strictly increasing.
    """
    ends = ends_sentence[input_ids]
    starts = np.flatnonzero(ends[:-1] & ~ends[1:]) + 1
    return np.concatenate([[0], starts]).astype(np.int64)
