"""Documents from every kind of source, one at a time and always in the same order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from longrecipe_core.corpus.bad_data import BadFileError, BadRowError, Counts, good_items
from longrecipe_core.corpus.docstrings import signatures_and_docstrings
from longrecipe_core.corpus.files import SourceFile, list_files, one_line
from longrecipe_core.corpus.foreign_ids import ForeignDecoder
from longrecipe_core.corpus.identity import resolve_source, source_digest
from longrecipe_core.corpus.reading import read_limited
from longrecipe_core.corpus.rows import Row, Rows, json_rows
from longrecipe_core.corpus.tables import arrow_rows, disk_rows, hub_rows, parquet_rows
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


Documents = Iterator[Document | BadRowError | BadFileError]


def iterate_documents(
    source: SourceSection, *, trust_remote_code: bool = False, counts: Counts | None = None
) -> Iterator[Document]:
    """The documents of a source, the first `source.limit` rows of it, holding one (or some megabytes) in memory.

    - `text`: one file is one document; its bytes as UTF-8, line ends kept, a leading byte order mark dropped.
    - `jsonl`, `parquet`, `arrow` (stream or file form), `hub` (streamed), `disk`: one row is one document:
      the text column, or prompt and response columns, or ids of another tokenizer, which are decoded without
      its special tokens.
    - `python-docstrings`: see `docstrings`. A file that doesn't parse is skipped.

    Files come sorted by name, rows in file order; compression is inferred from names (text, JSON lines). Hub
    tokens come from the environment (`HF_TOKEN`) only. `trust_remote_code` concerns the other tokenizer.

    Args:
        source: what to read; its `bad_rows` says whether what can't be read is an error or skipped. The limit
            counts bad rows too.
        trust_remote_code: run Python code that comes with the other tokenizer.
        counts: rows read, and rows and files skipped by reason, are added to it (reasons: `docs/corpus.md`).

    Raises:
        CorpusError: one line that names the file and, where it can be known, the row: no such file or
            column, a value of another type, bytes that are no UTF-8, bad JSON, a row above `longest_row`, ids
            of another vocabulary or tokenizer, a file cut short. With `bad_rows: skip` only what ends the
            reading of the whole source: nothing there, storage or hub that fails.
    """
    counts = Counts() if counts is None else counts
    items = _limited(_items(source, trust_remote_code), source.limit)
    yield from good_items(items, source.bad_rows == "skip", counts)


def _limited(items: Documents, limit: int | None) -> Documents:
    rows = 0
    for item in items:
        yield item
        rows += not isinstance(item, BadFileError)
        if rows == limit:
            return


def _items(source: SourceSection, trust_remote_code: bool) -> Documents:
    if source.format == "text":
        return (_text_document(file, source.longest_row) for file in list_files(source.path, source.format))
    if source.format == "python-docstrings":
        files = list_files(source.path, source.format)
        return chain.from_iterable(_docstring_documents(file, source.longest_row) for file in files)
    return _row_documents(source, trust_remote_code)


def _text_document(file: SourceFile, longest: int) -> Document | BadRowError | BadFileError:
    content = read_limited(file, longest)
    if isinstance(content, BadFileError):
        # Here a file is a row; only one that is damaged may hold more than was read.
        return content if content.reason == "damaged" else BadRowError(content.reason, str(content))
    try:
        return Document(content.decode("utf-8-sig"), None, file.name)
    except UnicodeDecodeError as error:
        return BadRowError("not_utf8", f"{file.name}: not UTF-8: {one_line(error)}")


def _docstring_documents(file: SourceFile, longest: int) -> Documents:
    content = read_limited(file, longest)
    if isinstance(content, BadFileError):
        yield content
        return
    try:
        samples = list(signatures_and_docstrings(content))
    except (SyntaxError, ValueError, RecursionError) as error:
        yield BadFileError("unparsable", f"{file.name}: can't be parsed: {one_line(error)}")
        return
    for line, signature, docstring in samples:
        yield Document(docstring, signature, f"{file.name}, line {line}", instruction=True)


def _row_documents(source: SourceSection, trust_remote_code: bool) -> Documents:
    columns, document = _reader(source, trust_remote_code)
    for row in _rows(source, columns):
        if isinstance(row, Row):
            try:
                yield document(row)
            except BadRowError as error:
                yield error
        else:
            yield row


def _rows(source: SourceSection, columns: list[str]) -> Rows:
    if source.format == "hub":
        return hub_rows(source, columns)
    if source.format == "disk":
        return disk_rows(source, columns)
    read = {"jsonl": json_rows, "parquet": parquet_rows, "arrow": arrow_rows}[source.format]
    files = list_files(source.path, source.format)
    return chain.from_iterable(read(file, columns, source.longest_row) for file in files)


def _reader(source: SourceSection, trust_remote_code: bool) -> tuple[list[str], Callable[[Row], Document]]:
    """The columns that are read, and how they become a document."""
    prompt, response, ids = source.prompt_column, source.response_column, source.ids_column
    if prompt is not None and response is not None:
        return [prompt, response], lambda row: Document(
            _text(row, response), _text(row, prompt), row.place, instruction=True
        )
    if ids is not None and source.tokenizer is not None:
        decoder = ForeignDecoder(source.tokenizer, trust_remote_code)
        return [ids], lambda row: Document(
            decoder.text(row.values[ids], f"{row.place}, column {ids!r}"), None, row.place
        )
    return [source.text_column], lambda row: Document(_text(row, source.text_column), None, row.place)


def _text(row: Row, column: str) -> str | None:
    value = row.values[column]
    if value is None:
        return None
    place = f"{row.place}, column {column!r}"
    if not isinstance(value, str):
        raise BadRowError("wrong_type", f"{place}: text expected, not {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:  # JSON can spell halves of surrogate pairs
            raise BadRowError("not_utf8", f"{place}: no UTF-8 form: {one_line(error)}") from error
    return value
