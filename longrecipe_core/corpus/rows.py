"""Rows of each format, one at a time, each with the place that messages name it by.

JSON lines are read here: `datasets` parses them in blocks of 10 MB, can't tell the line that is bad, takes
columns of dates for timestamps, and after a failed block reads the whole file once more through pandas.
Tables are read in `tables.py`.
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from longrecipe_core.corpus.bad_data import BadFileError, BadRowError
from longrecipe_core.corpus.files import SourceFile, one_line
from longrecipe_core.corpus.reading import DAMAGE_ERRORS, open_decompressed, oversized


class Row(NamedTuple):
    """One row: where it is, for messages, and its values by column."""

    place: str
    values: dict[str, Any]


Rows = Iterator[Row | BadRowError | BadFileError]


def json_rows(file: SourceFile, columns: list[str], longest: int) -> Rows:
    """The lines of a file of JSON objects; blank ones are no rows.

    Of a line above `longest` bytes no more than this is held, and it is one bad row.

    Raises:
        CorpusError: the storage fails.
    """
    number = 0
    try:
        with open_decompressed(file) as stream:
            while line := stream.readline(longest + 1):
                number += 1
                place = f"{file.name}, line {number}"
                if len(line) > longest and not line.endswith(b"\n"):
                    _skip_line(stream)
                    yield BadRowError("oversized", f"{place}: {oversized(longest)}")
                    continue
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield _parse(line, columns, place)
    except DAMAGE_ERRORS as error:
        yield BadFileError(
            "damaged", f"{file.name}, after line {number}: can't be read (cut short?): {one_line(error)}"
        )


def _skip_line(stream: BinaryIO) -> None:
    while (part := stream.readline(1 << 20)) and not part.endswith(b"\n"):
        pass


def _parse(line: bytes, columns: list[str], place: str) -> Row | BadRowError:
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRowError("not_utf8", f"{place}: not UTF-8: {one_line(error)}")
    except (ValueError, RecursionError) as error:
        return BadRowError("not_json", f"{place}: not JSON (cut short?): {one_line(error)}")
    if not isinstance(values, dict):
        return BadRowError("not_object", f"{place}: a JSON object expected, not {type(values).__name__}")
    return missing_column(columns, values, place) or Row(place, values)


def missing_column(columns: list[str], present: Iterable[str], place: str) -> BadRowError | None:
    """The error about the first of the columns that is not there."""
    for column in columns:
        if column not in present:
            names = ", ".join(sorted(map(str, present))) or "none"
            return BadRowError("missing_column", f"{place}: no column {column!r}; it has {names}")
    return None
