"""What can't be read as a document: a reason that is counted, and a line that names file and row.

The reasons, and what each means, are the table in `docs/corpus.md`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from longrecipe_core.errors import CorpusError

Item = TypeVar("Item")


class BadRowError(CorpusError):
    """One row can't be a document; the rows after it can be read."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BadFileError(CorpusError):
    """The rest of a file can't be read; the files after it can."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Counts:
    """How many rows were read, and why some were skipped; `read` = kept + all of `skipped`.

    Attributes:
        read: rows, bad ones included.
        skipped: rows by reason.
        skipped_files: files whose rest was dropped, by reason; how many rows those held can't be known.
    """

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_files: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """The counts as they stand in a manifest, reasons sorted."""
        return {
            "read": self.read,
            "skipped": dict(sorted(self.skipped.items())),
            "files_skipped": dict(sorted(self.skipped_files.items())),
        }


def total(counts: Iterable[Counts]) -> Counts:
    """The sum over sources."""
    result = Counts()
    for one in counts:
        result.read += one.read
        result.skipped.update(one.skipped)
        result.skipped_files.update(one.skipped_files)
    return result


def good_items(items: Iterable[Item | BadRowError | BadFileError], skip: bool, counts: Counts) -> Iterator[Item]:
    """The items that are no errors. Errors are raised, or with `skip` counted by their reason.

    A Python file that doesn't parse is skipped in either case: which ones parse is decided by the interpreter.
    """
    for item in items:
        if isinstance(item, BadFileError):
            if not skip and item.reason != "unparsable":
                raise item
            counts.skipped_files[item.reason] += 1
            continue
        counts.read += 1
        if not isinstance(item, BadRowError):
            yield item
        elif skip:
            counts.skipped[item.reason] += 1
        else:
            raise item
