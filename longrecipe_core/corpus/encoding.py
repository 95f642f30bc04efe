"""From documents to ids, batch by batch in bounded memory; shared by the tokenize and the replay stage.

This process reads, and takes the results in order. The tokenizer, the digests and the signatures run wherever the
engine runs its jobs. A batch ends by its characters alone, so it is the same on any number of workers.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from longrecipe_core.corpus.arrow_shards import Int32Array
from longrecipe_core.corpus.bad_data import Counts
from longrecipe_core.corpus.deduplication import signature
from longrecipe_core.corpus.sources import iterate_documents
from longrecipe_core.corpus.split import document_id
from longrecipe_core.corpus.tokenizer import Encoder, Likeness, load_tokenizer
from longrecipe_core.fan_out import Engine, Inputs
from longrecipe_core.recipe.sections import SourceSection

# What one call of the tokenizer gets: its own objects take about a hundred bytes per token.
_CHARACTERS_PER_BATCH = 1 << 20
_DOCUMENTS_PER_BATCH = 1 << 12


@dataclass(frozen=True)
class Encoded:
    """One document or sample as ids.

    Attributes:
        document_id: sha256 of its text (prompt, separator and response, where it has them).
        source: number of its source in the recipe.
        input_ids: int32 `[tokens]`.
        prompt_tokens: how many of the leading ids are prompt and separator, what the tokenizer puts in front
            included; 0 for plain text.
        signature: where asked for, see `deduplication.signature`.
    """

    document_id: str
    source: int
    input_ids: Int32Array
    prompt_tokens: int
    signature: Any = None


@dataclass(frozen=True)
class EncodingJob:
    """Texts for one call of the tokenizer: (prompt with separator or None, text)."""

    texts: list[tuple[str | None, str]]
    signatures: bool
    trust_remote_code: bool
    like: Likeness


@dataclass(frozen=True)
class EncodedBatch:
    """A job's result, in the job's order.

    Attributes:
        input_ids: int32 `[tokens of all]`, laid end to end.
        ends: where each text's ids end in it.
        prompt_tokens: of each.
        bodies: tokens of each without prompt and prefix.
        document_ids: of each.
        signatures: of each; all None where not asked for.
    """

    input_ids: Int32Array
    ends: list[int]
    prompt_tokens: list[int]
    bodies: list[int]
    document_ids: list[str]
    signatures: list[Any]


def encode_job(inputs: Inputs, job: EncodingJob) -> EncodedBatch:
    """Encode a batch with the tokenizer in `inputs["base"]`. Runs in a worker."""
    directory = inputs["base"]
    encoder = _encoder(str(directory), job.trust_remote_code, job.like, _state(directory))
    # Prompts and texts in one call: the tokenizer spreads it over the cores.
    flat = [part for prompt, text in job.texts for part in ([text] if prompt is None else [prompt, text])]
    ids = iter(encoder.encode(flat))
    pieces: list[Int32Array] = []
    prompt_tokens, bodies, ends, end = [], [], [], 0
    for prompt, _ in job.texts:
        front = [encoder.prefix] if prompt is None else [encoder.prefix, next(ids)]
        body = next(ids)
        pieces += [*front, body]
        prompt_tokens.append(0 if prompt is None else sum(map(len, front)))
        bodies.append(len(body))
        end += sum(map(len, front)) + len(body)
        ends.append(end)
    whole = [(prompt or "") + text for prompt, text in job.texts]
    return EncodedBatch(
        np.concatenate(pieces),
        ends,
        prompt_tokens,
        bodies,
        [document_id(text) for text in whole],
        [signature(text) if job.signatures else None for text in whole],
    )


@lru_cache(maxsize=1)
def _encoder(directory: str, trust_remote_code: bool, like: Likeness, state: tuple[object, ...]) -> Encoder:
    """One tokenizer per process; `state` makes a directory that was written anew another one."""
    return Encoder.like(like, Path(directory)) or Encoder(load_tokenizer(directory, trust_remote_code))


def _state(directory: Path) -> tuple[object, ...]:
    if not directory.is_dir():
        return ()  # loading it says so
    files = [path for path in sorted(directory.iterdir()) if path.is_file()]
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


class SourceEncoder:
    """Encodes sources; counts what is read and skipped on the way.

    Attributes:
        counts: one per source; complete when `documents` is at its end.
    """

    def __init__(
        self,
        sources: Sequence[SourceSection],
        tokenizer_directory: Path,
        separator: str,
        engine: Engine,
        *,
        signatures: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        self.counts = [Counts() for _ in sources]
        self._sources = sources
        self._inputs = {"base": tokenizer_directory}
        self._like = Encoder(load_tokenizer(tokenizer_directory, trust_remote_code)).likeness()
        self._separator = separator
        self._engine = engine
        self._signatures = signatures
        self._trust = trust_remote_code
        self._pending: deque[list[int]] = deque()  # of each batch under way, its documents' sources

    def documents(self) -> Generator[Encoded, None, None]:
        """All documents in order, as ids; to be closed where it is left early, for then the workers end.

        Prompt and separator are tokenized apart from the response, so that the boundary between them is exact.
        Skipped here are: `empty` (no text or response), `empty_prompt` (a sample's prompt), `no_tokens` (nothing is
        left of it).
        """
        for batch in self._engine.each(encode_job, self._jobs(), self._inputs):
            start = 0
            for number, source in enumerate(self._pending.popleft()):
                ids, start = batch.input_ids[start : batch.ends[number]], batch.ends[number]
                if batch.bodies[number] == 0:
                    self.counts[source].skipped["no_tokens"] += 1
                    continue
                yield Encoded(
                    batch.document_ids[number], source, ids, batch.prompt_tokens[number], batch.signatures[number]
                )

    def _jobs(self) -> Iterator[EncodingJob]:
        texts: list[tuple[str | None, str]] = []
        sources: list[int] = []
        characters = 0
        for source, prompt, text in self._texts():
            texts.append((prompt, text))
            sources.append(source)
            characters += len(prompt or "") + len(text)
            if characters >= _CHARACTERS_PER_BATCH or len(texts) >= _DOCUMENTS_PER_BATCH:
                self._pending.append(sources)
                yield EncodingJob(texts, self._signatures, self._trust, self._like)
                texts, sources, characters = [], [], 0
        if texts:
            self._pending.append(sources)
            yield EncodingJob(texts, self._signatures, self._trust, self._like)

    def _texts(self) -> Iterator[tuple[int, str | None, str]]:
        """(source, prompt with separator or None, text) of every document that has what it needs."""
        for number, source in enumerate(self._sources):
            counts = self.counts[number]
            for document in iterate_documents(source, trust_remote_code=self._trust, counts=counts):
                if not document.text:
                    counts.skipped["empty"] += 1
                elif document.instruction and not document.prompt:
                    counts.skipped["empty_prompt"] += 1
                else:
                    prompt = document.prompt
                    yield number, None if prompt is None else prompt + self._separator, document.text


def source_label(number: int, source: SourceSection) -> str:
    """A name without the path, since the same content at another place must give the same bytes."""
    return f"{number}-{source.format}"
