"""From documents to ids, batch by batch in bounded memory; shared by the tokenize and the replay stage."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from longrecipe_core.corpus.arrow_shards import Int32Array
from longrecipe_core.corpus.sources import iterate_documents
from longrecipe_core.corpus.split import document_id
from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.recipe.sections import SourceSection

# What one call of the tokenizer gets: its own objects take about a hundred bytes per token.
_CHARACTERS_PER_BATCH = 1 << 21
_DOCUMENTS_PER_BATCH = 1 << 12


@dataclass(frozen=True)
class Encoded:
    """One document or sample as ids.

    Attributes:
        document_id: sha256 of its text (prompt, separator and response, where it has them).
        source: number of its source in the recipe and the format, as in `0-text`.
        input_ids: int32 `[tokens]`.
        prompt_tokens: how many of the leading ids are prompt and separator, what the tokenizer puts in front
            included; 0 for plain text.
    """

    document_id: str
    source: str
    input_ids: Int32Array
    prompt_tokens: int


@dataclass
class Counts:
    """How many documents were read, and what became of them; `read` = kept + all of `skipped`."""

    read: int
    skipped: Counter[str]
    skipped_files: Counter[str]

    @classmethod
    def none(cls) -> "Counts":
        """All zero."""
        return cls(0, Counter(), Counter())


def encode_sources(
    sources: Sequence[SourceSection],
    encoder: Encoder,
    separator: str,
    counts: Counts,
    trust_remote_code: bool = False,
) -> Iterator[Encoded]:
    """All documents of the sources in order, as ids, in batches of bounded size; updates `counts` on the way.

    Prompt and separator are tokenized apart from the response, so that the boundary between them is exact.
    Skipped are: `empty` (no text or response), `empty_prompt` (a sample's prompt), `no_tokens` (nothing is
    left of it).
    """
    for batch in _batches(_texts(sources, separator, counts, trust_remote_code)):
        # Prompts and texts in one call: the tokenizer spreads it over the cores.
        flat = [part for _, prompt, text in batch for part in ([text] if prompt is None else [prompt, text])]
        ids = iter(encoder.encode(flat))
        for source, prompt, text in batch:
            head = next(ids) if prompt is not None else np.zeros(0, dtype=np.int32)
            body = next(ids)
            if len(body) == 0:
                counts.skipped["no_tokens"] += 1
                continue
            whole = np.concatenate([encoder.prefix, head, body])
            prompt_tokens = len(encoder.prefix) + len(head) if prompt is not None else 0
            yield Encoded(document_id((prompt or "") + text), source, whole, prompt_tokens)


def _texts(
    sources: Sequence[SourceSection], separator: str, counts: Counts, trust_remote_code: bool
) -> Iterator[tuple[str, str | None, str]]:
    """(source label, prompt with separator or None, text) of every document that has what it needs."""
    for number, source in enumerate(sources):
        label = source_label(number, source)
        for document in iterate_documents(
            source, trust_remote_code=trust_remote_code, skipped_files=counts.skipped_files
        ):
            counts.read += 1
            if not document.text:
                counts.skipped["empty"] += 1
            elif document.instruction and not document.prompt:
                counts.skipped["empty_prompt"] += 1
            else:
                prompt = document.prompt
                yield label, None if prompt is None else prompt + separator, document.text


def _batches(texts: Iterable[tuple[str, str | None, str]]) -> Iterator[list[tuple[str, str | None, str]]]:
    batch: list[tuple[str, str | None, str]] = []
    characters = 0
    for item in texts:
        batch.append(item)
        characters += len(item[1] or "") + len(item[2])
        if characters >= _CHARACTERS_PER_BATCH or len(batch) >= _DOCUMENTS_PER_BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def source_label(number: int, source: SourceSection) -> str:
    """A name without the path, since the same content at another place must give the same bytes."""
    return f"{number}-{source.format}"
