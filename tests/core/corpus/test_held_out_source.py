"""A source with a validation share of its own: books that are held out by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from smallest_recipe import RECIPE

from longrecipe_core.corpus import TokenShards, tokenize
from longrecipe_core.recipe import Recipe, stage_part
from longrecipe_core.recipe.sections import CorpusSourceSection


def source(path: Path, name: str, share: float | None) -> CorpusSourceSection:
    rows = [{"text": f"{name} number {number}. It goes on."} for number in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return CorpusSourceSection(path=str(path), format="jsonl", validation_share=share)


@pytest.mark.parametrize(("own", "common"), [(1.0, 0.0), (0.0, 1.0)])
def test_a_source_is_held_out_or_trained_on_as_it_says(
    tmp_path: Path, tokenizer: Path, own: float, common: float
) -> None:
    sources = [source(tmp_path / "a.jsonl", "first", own), source(tmp_path / "b.jsonl", "second", None)]
    tokenize(sources, tokenizer, tmp_path / "out", validation_share=common)
    split = "validation" if own else "train"
    shards = TokenShards(tmp_path / "out", split)
    assert {shards.source(row) for row in range(len(shards))} == {"0-jsonl"}
    assert len(shards) == 20


def test_a_share_that_is_not_given_is_in_no_fingerprint() -> None:
    def part(**keys: float) -> dict[str, Any]:
        tree = RECIPE | {"corpus": {"sources": [{"path": "documents", **keys}]}}
        return stage_part(Recipe.model_validate(tree), "tokenize")

    assert "validation_share" not in part()["corpus"]["sources"][0]
    assert part(validation_share=0) != part(validation_share=1) != part()


def test_a_copy_that_would_stand_on_both_sides_is_skipped_and_counted(tmp_path: Path, tokenizer: Path) -> None:
    sources = [source(tmp_path / "a.jsonl", "same", 0), source(tmp_path / "b.jsonl", "same", 1)]
    metrics = tokenize(sources, tokenizer, tmp_path / "out", validation_share=0)
    assert metrics["splits"]["train"]["documents"] == 20
    assert metrics["splits"]["validation"]["documents"] == 0
    assert metrics["documents"]["skipped"] == {"copy_of_other_split": 20}
    alike = [source(tmp_path / "a.jsonl", "same", 1), source(tmp_path / "b.jsonl", "same", 1)]
    metrics = tokenize(alike, tokenizer, tmp_path / "alike", validation_share=0)
    assert metrics["splits"]["validation"]["documents"] == 40
