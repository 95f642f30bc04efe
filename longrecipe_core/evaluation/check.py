"""Whether documents and lengths are long enough for what is asked: told before anything is measured."""

from collections.abc import Callable
from functools import cache
from typing import Any

from longrecipe_core.corpus import TokenShards
from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.evaluation.context_nll import window_ends
from longrecipe_core.evaluation.copying import check_copying
from longrecipe_core.evaluation.nll import Ints
from longrecipe_core.evaluation.passkey import check_passkey
from longrecipe_core.evaluation.retrieval import check_prompts, longest
from longrecipe_core.evaluation.ruler import Haystack
from longrecipe_core.recipe import EvaluationSection


def check_measures(
    section: EvaluationSection,
    tokenizer: Callable[[], Any],
    validation: TokenShards,
    lengths: Ints,
    *,
    target_length: int,
    seed: int,
) -> None:
    """Raise EvaluationError where a measurement of `section` can't be taken of these documents, at these lengths.

    `lengths` are those of the documents chosen of `validation`; `tokenizer` is called where prompts are made of text.
    """
    if section.context_nll is not None:
        window_ends(section.context_nll, lengths)
    if section.passkey is None and section.copying is None and not longest(section):
        return
    reader = tokenizer()
    for distance in section.passkey.distances if section.passkey is not None else ():
        check_passkey(reader, distance, target_length)
    encoder = Encoder(reader)
    if section.copying is not None:
        check_copying(section.copying, encoder.prefix.size, target_length, int(lengths.max()))
    check_prompts(section, encoder, cache(lambda: Haystack.of_documents(validation, reader, longest(section), seed)))
