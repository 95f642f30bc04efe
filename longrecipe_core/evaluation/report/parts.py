"""What a report consists of: sections of text, tables, pictures and heat maps, before anybody draws them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Text as it is, in a fixed width."""

    text: str


@dataclass(frozen=True)
class Table:
    """A head, which may be empty, and rows of the same width; the first `names` columns are names, the rest figures."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    names: int = 1


@dataclass(frozen=True)
class Picture:
    """A PNG on white, and what it shows."""

    png: bytes
    what: str


@dataclass(frozen=True)
class Pictures:
    """Small pictures, one beside the other."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class HeatMap:
    """Scores from 0 to 100, `cells[row][column]`, None where nothing was measured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class HeatMaps:
    """Heat maps to compare, one beside the other."""

    title: str
    maps: tuple[HeatMap, ...]


@dataclass(frozen=True)
class Bars:
    """Shares side by side: `front` before `back`, both of the same length, and what they show."""

    what: str
    front: tuple[float, ...]
    back: tuple[float, ...]


Part = Text | Code | Table | Picture | Pictures | HeatMaps | Bars


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it; `folded` ones show their heading until they are opened."""

    title: str
    parts: tuple[Part, ...]
    folded: bool = False

    @property
    def anchor(self) -> str:
        """For links within the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def facts(rows: Sequence[tuple[str, object]], title: str = "") -> Table:
    """A table of names and what they are, without a head; what is None is left out."""
    return Table((), tuple((name, str(value)) for name, value in rows if value is not None), title, names=2)
