"""Lists of whole numbers from a pickle that somebody else made, without unpickling it.

The reference implementation (GitHub zhiyuanhubj/LongRecipe) pickles its positions and right points. A pickle is a
program for a small stack machine. Of its operations only those that build lists and whole numbers are carried out here;
one that names a class, calls anything, or looks anything up is an error. `pickle.Unpickler` with a forbidding
`find_class` would be as strict, but needs 9 GB for the reference's 10,000 lists of 24,000 numbers, and as much as a
hostile file wants for its memo. Here some lists exist at a time, four bytes per number.
"""

import mmap
import pickletools
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from longrecipe_core.errors import IndexingError

LARGEST = 2**31 - 1
"""Of the numbers that an index can hold."""
_LONGEST_STACK = 100_000
"""Items that wait to be put into a list; Python writes 1,000 at a time."""

_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
# Version, framing, and notes of where a list could be found again, which nothing here ever looks up.
_NO_EFFECT = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}

Numbers: TypeAlias = "array[int]"


def read_lists(path: Path) -> Iterator[Numbers]:
    """The lists in the one list that a pickle holds, one by one; they may be empty.

    Raises:
        IndexingError: It is cut short or holds anything but lists of whole numbers in `0..LARGEST`; names file and
            byte.
    """
    for inner, numbers in _finished_lists(path):
        if inner:
            yield numbers
        elif numbers:
            raise IndexingError(f"{path}: holds a list of {len(numbers)} numbers, not a list of such lists")


def read_numbers(path: Path) -> Numbers:
    """The one list of whole numbers that a pickle holds; raises as `read_lists`."""
    for inner, numbers in _finished_lists(path):
        if inner:
            raise IndexingError(f"{path}: holds a list of lists, not of numbers")
        return numbers
    raise AssertionError("a pickle without an error has an outermost list")


class _List:
    """A list in the making."""

    def __init__(self) -> None:
        self.numbers: Numbers = array("i")
        self.lists = 0


def _finished_lists(path: Path) -> Iterator[tuple[bool, Numbers]]:
    """Each inner list with True, when it is put into the outermost; then the outermost's own numbers with False."""
    stack: list[_List | int | None] = []  # None is a mark
    begun, place = 0, 0
    try:
        # Mapped, since a read of the length that an operation names allocates no more than the file has left.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for operation, argument, position in pickletools.genops(cast(BinaryIO, data)):
                name, place = operation.name, position or 0
                if name in _NUMBERS:
                    stack.append(_number(argument))
                elif name in ("EMPTY_LIST", "LIST"):
                    items = _items(stack) if name == "LIST" else []
                    begun += 1
                    stack.append(_List())
                    for _ in _put(stack, items):
                        raise ValueError("lists in a list that is made at once")
                elif name == "MARK":
                    stack.append(None)
                elif name in ("APPEND", "APPENDS"):
                    items = _items(stack) if name == "APPENDS" else [stack.pop()]
                    for numbers in _put(stack, items):
                        yield True, numbers
                elif name == "STOP":
                    yield False, _outermost(stack)
                elif name not in _NO_EFFECT:
                    raise ValueError(
                        f"operation {name}, of a pickle with something else than lists of whole numbers, or with the "
                        f"same list twice: write copies"
                    )
                if len(stack) > _LONGEST_STACK:
                    raise ValueError(f"{len(stack)} items one in the other or waiting for their list")
            if data.tell() != data.size():
                raise ValueError(f"{data.size() - data.tell()} bytes behind the end of the pickle")
    except OSError as error:
        raise IndexingError(f"{path}: can't be read: {error}") from error
    except (ValueError, IndexError, struct.error, OverflowError) as error:
        where = f"byte {place}" + (f", list {begun - 2}" if begun > 1 else "")
        raise IndexingError(f"{path}: {where}: {error}") from error


def _number(value: object) -> int:
    # Protocol 0 writes True as the number 01, which pickletools gives as a bool.
    if type(value) is not int or not 0 <= value <= LARGEST:
        shown = repr(value) if not isinstance(value, int) or value.bit_length() < 100 else "a huge number"
        raise ValueError(f"{shown}; allowed: whole numbers in 0..{LARGEST}")
    return value


def _items(stack: list[_List | int | None]) -> list[_List | int | None]:
    """Take all above the last mark, and the mark, off the stack."""
    items: list[_List | int | None] = []
    while (item := stack.pop()) is not None:
        items.append(item)
    return items[::-1]


def _put(stack: list[_List | int | None], items: list[_List | int | None]) -> Iterator[Numbers]:
    """Put items into the list on top of the stack; gives those that are lists themselves."""
    target = stack[-1]
    if not isinstance(target, _List):
        raise ValueError("items without a list to put them into")
    for item in items:
        if isinstance(item, int):
            target.numbers.append(item)
        elif isinstance(item, _List):
            if len(stack) > 1 or item.lists:
                raise ValueError("lists nested three deep; allowed: a list of lists of numbers")
            target.lists += 1
            yield item.numbers
        else:
            raise ValueError("a mark where an item should be")
        if target.lists and target.numbers:
            raise ValueError("a list with both numbers and lists")


def _outermost(stack: list[_List | int | None]) -> Numbers:
    if len(stack) != 1 or not isinstance(stack[0], _List):
        raise ValueError("the pickle does not hold one list")
    return stack[0].numbers
