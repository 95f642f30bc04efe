"""Text from outside stays text, by another's parser of markdown."""

import base64
import html
import io
import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from flows.markdown import CELL_CHARACTERS, block, image, plain, table

PARSER = MarkdownIt("commonmark").enable("table").enable("strikethrough")
# No control characters nor surrogates, which are replaced, and see below.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn")), max_size=40)
NASTY = st.text("|`\\\n*_<>[]()#&~!- @:/ab", max_size=20)


def rendered(markdown, tag):
    found = re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", PARSER.render(markdown), re.DOTALL)
    return [html.unescape(text) for text in found]


@given(st.lists(st.tuples(NASTY | TEXT, NASTY | TEXT), min_size=1, max_size=3))
def test_every_cell_is_shown_as_it_is_on_one_line(rows):
    shown = rendered(table(("one", "two"), rows), "td")
    assert shown == [" ".join(cell.split()) for row in rows for cell in row]


@given(NASTY | TEXT)
@example("a\n```\nb")
@example("````\n```")
def test_a_block_holds_its_text(text):
    (shown,) = rendered("before\n\n" + block(text) + "after", "code")
    assert shown.splitlines() == (text + "\n").splitlines()


def test_a_long_text_is_cut_and_control_characters_are_shown_as_such():
    assert plain("a" * 1000) == "a" * (CELL_CHARACTERS - 1) + "…"
    assert plain("a\x00b\ud800c") == "a\ufffdb\ufffdc"
    assert "\x00" not in block("a\x00b")


def test_a_picture_is_in_the_text_unless_it_is_too_large():
    def shown(pixels):
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        return image(png.getvalue(), "plot")

    (data,) = re.findall(
        r"^!\[plot\]\(data:image/png;base64,([^)]*)\)$", shown(np.full((40, 60, 3), 200, np.uint8)), re.M
    )
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    assert (found == 200).all()
    assert found.shape == (40, 60, 3)
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    assert re.fullmatch(r"\*plot: the picture has [\d,]+ bytes and is left out\*\n", shown(noise))
