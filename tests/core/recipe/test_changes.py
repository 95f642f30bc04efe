"""What differs between two parts of a recipe, in the recipe's own words."""

from pathlib import Path

import pytest
import yaml

from longrecipe_core.recipe import Recipe, changed_keys, stage_part
from longrecipe_core.recipe.changes import _recipe_key, _shown

ROOT = Path(__file__).resolve().parents[3]
TINY = (ROOT / "recipes" / "tiny-cpu.yaml").read_text()
STAGES = (
    "base",
    "tokenize",
    "warmup",
    "score",
    "index",
    "extend",
    "replay",
    "anneal",
    "merge",
    "evaluate",
    "report",
    "measure",
)
SCORE = ("selection.strategy=impactful", "score={source: warmup, warmup: {learning_rate: 1e-3, steps: 2}}")


@pytest.mark.parametrize(
    ("stage", "override"),
    [
        ("base", "base.training.steps=70"),
        ("base", "corpus.validation_share=0.4"),
        ("tokenize", "corpus.sources.0.limit=9"),
        ("index", "corpus.sources.0.weight=2.5"),
        ("index", "positions.strategy=rpes"),
        ("extend", "extend.learning_rate=3e-5"),
        ("extend", "context.train_length=300"),
        ("warmup", "score.warmup.steps=3"),
        ("score", "context.window=200"),
        ("replay", "replay.separator=EOS"),
        ("replay", "context.train_length=300"),
        ("replay", "replay.sources.0.limit=9"),
        ("anneal", "anneal.schedule=constant"),
        ("anneal", "replay.loss_on_prompt=false"),
        ("anneal", "replay.attention_across_samples=false"),
        ("evaluate", "evaluation.documents=3"),
        ("report", "name=other"),
    ],
)
def test_a_key_is_named_as_set_takes_it(stage, override):
    """The text's key and new value, given back as an override, make the same recipe."""
    before, after = Recipe.parse(TINY, SCORE), Recipe.parse(TINY, [*SCORE, override])
    [text] = changed_keys(stage, stage_part(before, stage), stage_part(after, stage))
    key, _, values = text.partition(" ")
    assert key == override.partition("=")[0]
    again = Recipe.parse(TINY, [*SCORE, f"{key}={values.partition(' → ')[2]}"])
    assert stage_part(again, stage) == stage_part(after, stage)


def test_nothing_differs():
    part = stage_part(Recipe.parse(TINY), "extend")
    assert changed_keys("extend", part, part) == []


def test_keys_that_one_has_not_and_lists_of_another_length():
    before = {"training": {"steps": 1, "lora": {"rank": 8}}, "mixture": {"weights": [1.0]}}
    after = {"training": {"steps": 2}, "mixture": {"weights": [1.0, 2.0]}}
    assert changed_keys("extend", before, after) == [
        "extend.steps 1 → 2",
        "extend.lora {rank: 8} → absent",
        "weights of corpus.sources [1.0] → [1.0, 2.0]",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5e-5, "5e-5"),
        (1e20, "1e20"),
        (1.5e-10, "1.5e-10"),
        (0.5, "0.5"),
        (3, "3"),
        (True, "true"),
        (None, "null"),
        ("linear", "linear"),
        ("5", "'5'"),
        ([1, 2], "[1, 2]"),
        ({"type": "ntk"}, "{type: ntk}"),
    ],
)
def test_values_are_those_of_yaml(value, text):
    assert _shown(value) == text
    if not isinstance(value, float):
        assert yaml.safe_load(text) == value


def test_long_values_are_cut():
    assert len(_shown("x" * 500)) == 60


def keys(value, at=""):
    """All keys of a tree down to plain values, as `--set` writes them."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inside = [key for name, item in items for key in keys(item, f"{at}.{name}" if at else str(name))]
    return inside or [at]


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_of_every_part_stands_in_the_recipe(stage):
    recipe = Recipe.parse(TINY, SCORE)
    for key in keys(stage_part(recipe, stage)):
        node = recipe.model_dump(mode="json")
        for name in _recipe_key(stage, key).split("."):
            if node is None:
                break  # a section that this recipe has not
            node = node[int(name) if isinstance(node, list) else name]
