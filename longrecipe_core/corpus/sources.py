"""Documents from every kind of source, one at a time and always in the same order."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from longrecipe_core.corpus.docstrings import signatures_and_docstrings
from longrecipe_core.corpus.files import SourceFile, list_files, one_line
from longrecipe_core.corpus.identity import resolve_source, source_digest
from longrecipe_core.corpus.rows import Row, iterate_rows, read_bytes
from longrecipe_core.corpus.tokenizer import load_tokenizer
from longrecipe_core.errors import CorpusError
from longrecipe_core.recipe.sections import SourceSection

__all__ = ["Document", "iterate_documents", "resolve_source", "source_digest"]


@dataclass(frozen=True)
class Document:
    """One document or one instruction sample.

    Attributes:
        text: the text, or the response of a sample; None where the source has null.
        prompt: the prompt of a sample; None for plain text, and where the source has null.
        origin: file and row, for messages only; part of no digest.
        instruction: whether this is a sample of prompt and response.
    """

    text: str | None
    prompt: str | None
    origin: str
    instruction: bool = False

    def joined(self, separator: str = "\n") -> str:
        """The whole text; of a sample prompt, separator and response."""
        return (self.text or "") if self.prompt is None else f"{self.prompt}{separator}{self.text or ''}"


def iterate_documents(
    source: SourceSection, *, trust_remote_code: bool = False, skipped_files: Counter[str] | None = None
) -> Iterator[Document]:
    """The documents of a source, at most `source.limit` of them, holding one (or a small batch) in memory.

    - `text`: one file is one document; its bytes as UTF-8, line ends kept, a leading byte order mark dropped.
    - `jsonl`, `parquet`, `arrow` (stream or file form), `hub` (streamed), `disk`: one row is one document:
      the text column, or prompt and response columns, or ids of another tokenizer, which are decoded without
      its special tokens.
    - `python-docstrings`: see `docstrings`. A file that doesn't parse is counted in
      `skipped_files["unparsable"]`.

    Files come sorted by name, rows in file order; compression is inferred from names (text, JSON lines). Hub
    tokens come from the environment (`HF_TOKEN`) only. `trust_remote_code` concerns the other tokenizer.

    Raises:
        CorpusError: one line that names the file and, where it can be known, the row: no such file or
            column, a value of another type, bytes that are no UTF-8, bad JSON, a file cut short.
    """
    documents: Iterator[Document]
    if source.format == "text":
        documents = (_text_document(file) for file in list_files(source.path, source.format))
    elif source.format == "python-docstrings":
        documents = _docstring_documents(source, Counter() if skipped_files is None else skipped_files)
    else:
        documents = _row_documents(source, trust_remote_code)
    return islice(documents, source.limit)


def _text_document(file: SourceFile) -> Document:
    try:
        return Document(read_bytes(file).decode("utf-8-sig"), None, file.name)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file.name}: not UTF-8: {one_line(error)}") from error


def _docstring_documents(source: SourceSection, skipped_files: Counter[str]) -> Iterator[Document]:
    for file in list_files(source.path, source.format):
        try:
            samples = list(signatures_and_docstrings(read_bytes(file)))
        except (SyntaxError, ValueError, RecursionError):
            skipped_files["unparsable"] += 1
            continue
        for line, signature, docstring in samples:
            yield Document(docstring, signature, f"{file.name}, line {line}", instruction=True)


def _row_documents(source: SourceSection, trust_remote_code: bool) -> Iterator[Document]:
    if source.prompt_column is not None and source.response_column is not None:
        prompt, response = source.prompt_column, source.response_column
        for place, row in iterate_rows(source, [prompt, response]):
            yield Document(_text(row, response, place), _text(row, prompt, place), place, instruction=True)
    elif source.ids_column is not None and source.tokenizer is not None:
        decode = _foreign_decoder(source.tokenizer, trust_remote_code)
        for place, row in iterate_rows(source, [source.ids_column]):
            yield Document(decode(row[source.ids_column], f"{place}, column {source.ids_column!r}"), None, place)
    else:
        for place, row in iterate_rows(source, [source.text_column]):
            yield Document(_text(row, source.text_column, place), None, place)


def _text(row: Row, column: str, place: str) -> str | None:
    value = row[column]
    if value is None:
        return None
    if not isinstance(value, str):
        raise CorpusError(f"{place}, column {column!r}: text expected, not {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell halves of surrogate pairs
        raise CorpusError(f"{place}, column {column!r}: no UTF-8 form: {one_line(error)}") from error
    return value


def _foreign_decoder(directory: str, trust_remote_code: bool) -> Callable[[Any, str], str | None]:
    tokenizer = load_tokenizer(directory, trust_remote_code)
    size = len(tokenizer)

    def decode(ids: Any, place: str) -> str | None:
        if ids is None:
            return None
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise CorpusError(f"{place}: a list of token ids expected, not {type(ids).__name__} of other things")
        if ids and not (min(ids) >= 0 and max(ids) < size):
            raise CorpusError(f"{place}: ids {min(ids)}..{max(ids)}, but tokenizer {directory} has 0..{size - 1}")
        text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    return decode
