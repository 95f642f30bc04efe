"""Markdown in which text from outside (names, paths, errors) stays text, whatever is in it."""

import base64
import io
import re
from collections.abc import Iterable, Sequence

CELL_CHARACTERS = 300
COLOURS = 256
IMAGE_BYTES = 72_000
"""Of a PNG; in base64 a third more."""


def plain(text: object, limit: int = CELL_CHARACTERS) -> str:
    """Any text on one line, cut at `limit` characters, with nothing in it that markdown or HTML gives a meaning."""
    line = " ".join(_printable(str(text)).split())
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", line)
    return line.replace("://", ":&#47;/").replace("@", "&#64;")  # no link is made of them


def table(head: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> str:
    """A table; columns whose numbers are in `right` are aligned so."""
    ruler = ["---:" if number in right else "---" for number in range(len(head))]
    lines = [head, ruler, *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def block(text: str) -> str:
    """Text as it is, in a fence longer than any in it."""
    text = _printable(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}\n"


def image(png: bytes, what: str) -> str:
    """A plot in the text itself, with a palette, which makes it small; one that is too large is told, and left out."""
    from PIL import Image

    few = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS).save(few, "PNG", optimize=True)
    png = few.getvalue()
    if len(png) > IMAGE_BYTES:
        return f"*{plain(what)}: the picture has {len(png):,} bytes and is left out*\n"
    return f"![{plain(what)}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})\n"


def _printable(text: str) -> str:
    """Without control characters and halves of surrogate pairs, which databases or JSON don't take."""
    return "".join(one if one.isprintable() or one.isspace() else "\ufffd" for one in text)
