r"""Classes of vocabulary entries, each looked at by itself; made for English.

Part of speech is that of HanTa's English model (Wartena 2023, "The Hanover Tagger (Version 1.1.0)"): the most probable
tag of a word without its sentence, so that `to` has one class and `Will` too.
"""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLASSES = (
    "numbers",
    "pronouns",
    "auxiliaries",
    "conjunctions",
    "subordinating conjunctions",
    "adpositions",
    "names",
    "words",
    "parts of words",
    "punctuation",
    "symbols",
    "code",
    "white space",
    "special",
)

# The model has the C5 tags of the British National Corpus; put together as in Universal Dependencies where they agree.
BY_TAG = {
    "CRD": "numbers",
    **dict.fromkeys(("PNP", "PNI", "PNQ", "PNX", "DPS", "DTQ", "EX0"), "pronouns"),
    "VM0": "auxiliaries",
    **{f"V{verb}{form}": "auxiliaries" for verb in "BDH" for form in "BDGINZ"},  # be, do, have
    "CJC": "conjunctions",
    **dict.fromkeys(("CJS", "CJT"), "subordinating conjunctions"),
    **dict.fromkeys(("PRP", "PRF", "AVP", "TO0"), "adpositions"),
    "NP0": "names",
}
# Natural logarithm. HanTa gives words that it has never seen -30 and less, what occurred once or twice as a misspelling
# or a piece (`beet` for `been`) about -13.5, and the rarest words of closed classes (`amidst`, `hath`) above -12.9.
KNOWN_WORD = -12.9

# They are tokens of their own wherever they stand; 's is more often a genitive.
CLITICS = ("'d", "'ll", "'m", "'re", "'s", "'ve")
WORD = re.compile(r"[A-Za-z]+")
WORD_STARTS = ("Ġ", "▁")  # of byte-level BPE and of sentencepiece
# Letters joined as in identifiers, members, tags and escapes; camelCase.
CODE_WITH_LETTERS = re.compile(r"[{}<>=|\\$;_]|\(\)|\w\(|\w\[|^\s*\.[A-Za-z]|[a-z][A-Z]")
# Operators, braces, and brackets in a row; `.`, `).` and `--` are prose.
CODE_WITHOUT = re.compile(
    r"""[{}<>=|\\^~`_]|\(\)|\[\]|\(\(|\)\)|\);|\]\)|\]\[|\)\[|\[['"]|['"]\]|->|::|//|/\*|\*/|&&|\+\+|\+=|-=|!="""
)


@dataclass(frozen=True)
class Vocabulary:
    """One text and one class of `CLASSES` per entry."""

    texts: list[str]
    classes: list[str]


def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """Every entry of a transformers tokenizer, in the order of ids, decoded by itself and put into a class.

    An entry is a whole word where it carries the tokenizer's mark of a word's start. The first entry of a longer word
    carries it too, and a word at the start of a line may not, so both can be put wrongly.
    """
    size = len(tokenizer)
    texts = tokenizer.batch_decode([[i] for i in range(size)], clean_up_tokenization_spaces=False)
    pieces = tokenizer.convert_ids_to_tokens(list(range(size)))
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    tagger = _tagger()
    classes = [
        "special" if i in special or piece is None else token_class(text, piece.startswith(WORD_STARTS), tagger)
        for i, (text, piece) in enumerate(zip(texts, pieces, strict=True))
    ]
    return Vocabulary(texts, classes)


def token_class(text: str, starts_word: bool, tagger: Any) -> str:
    """The class of an entry that is not special.

    Args:
        text: The entry, decoded by itself.
        starts_word: Whether it carries the tokenizer's mark of a word's start.
        tagger: From HanTa.
    """
    word = text.strip().replace("’", "'")
    if not word:
        return "white space" if text or starts_word else "parts of words"
    kinds = {unicodedata.category(letter)[0] for letter in word if not letter.isspace()}
    if "�" in word or not kinds & set("LNPS"):
        return "parts of words"  # some bytes of a character, or marks
    if "L" not in kinds:
        return _without_letters(word, kinds)
    if CODE_WITH_LETTERS.search(word):
        return "code"
    if not starts_word and word.lower() not in CLITICS:
        return "parts of words"
    return _part_of_speech(word, tagger)


def _without_letters(word: str, kinds: set[str]) -> str:
    if CODE_WITHOUT.search(word):
        return "code"
    if "N" in kinds:
        return "numbers"
    return "punctuation" if "P" in kinds else "symbols"


def _part_of_speech(word: str, tagger: Any) -> str:
    # A single letter is a variable, an initial or a list's number; but for one it is no part of speech.
    if (len(word) == 1 and word != "I") or not (WORD.fullmatch(word) or word.lower() in CLITICS):
        return "words"
    tag, likelihood = tagger.tag_word(word)[0]
    found = BY_TAG.get(tag, "words")
    if found == "names":
        return "names" if word[0].isupper() else "words"
    # Of a closed class is only a word that was often seen there; in lower case, where a sentence's first has others.
    likelihood = max(likelihood, dict(tagger.tag_word(word.lower())).get(tag, likelihood))
    return found if likelihood > KNOWN_WORD else "words"


def _tagger() -> Any:
    import HanTa  # type: ignore[import-untyped]
    from HanTa.HanoverTagger import HanoverTagger  # type: ignore[import-untyped]

    # By its whole path: a name alone would be looked for in the working directory first.
    return HanoverTagger(str(Path(HanTa.__file__).with_name("morphmodel_en.pgz")))
