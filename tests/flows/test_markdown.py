"""Text from outside stays text, by another's parser of markdown."""

import base64
import html
import re

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

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
def test_a_block_holds_its_text(text):
    (shown,) = rendered("before\n\n" + block(text) + "after", "code")
    assert shown.splitlines() == (text + "\n").splitlines()


def test_a_long_text_is_cut_and_control_characters_are_shown_as_such():
    assert plain("a" * 1000) == "a" * (CELL_CHARACTERS - 1) + "…"
    assert plain("a\x00b\ud800c") == "a\ufffdb\ufffdc"
    assert "\x00" not in block("a\x00b")


def test_a_picture_is_in_the_text_unless_it_is_too_large():
    assert base64.b64encode(b"picture").decode() in image(b"picture", "plot")
    large = image(b"x" * 80_000, "plot")
    assert "80,000 bytes" in large
    assert len(large) < 200
