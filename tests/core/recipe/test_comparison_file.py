"""Comparison files: what they come to, and what is refused in one line each."""

from pathlib import Path

import pytest
import yaml
from smallest_recipe import RECIPE

from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe import Recipe, stage_part
from longrecipe_core.recipe.comparison import Comparison

ROOT = Path(__file__).resolve().parents[3]
SHARED = RECIPE | {"extend": {"learning_rate": 1e-3, "steps": 7}}
FILE = {
    "name": "two",
    "recipe": SHARED,
    "seeds": [4, 5],
    "variants": {"pose": ["positions.strategy=pose"], "plain": ["selection.strategy=none"]},
}


def write(tmp_path, **changes) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(FILE | changes, sort_keys=False))
    return path


def test_each_variant_has_each_seed_and_the_ablation_the_first(tmp_path):
    found = Comparison.load(write(tmp_path, ablation={"short": ["context.train_length=20"]}))
    trainings = [(one.group, one.variant, one.seed) for one in found.trainings()]
    assert trainings == [
        *(("variants", name, seed) for seed in (4, 5) for name in ("pose", "plain")),
        ("ablation", "short", 4),
    ]
    pose, short = next(found.trainings()), list(found.trainings())[-1]
    assert (pose.recipe.positions.strategy, pose.recipe.selection.strategy) == ("pose", "digits")
    assert (pose.recipe.seed, pose.seeded().seed, found.shared.seed) == (2027, 4, 2027)
    assert (short.recipe.context.train_length, found.shared.context.train_length) == (20, 40)
    assert [one.recipe.extend.steps for one in found.trainings()] == [7] * 5


def test_a_variant_and_its_seed_change_nothing_that_comes_before_or_is_measured(tmp_path):
    """Everything that a variant may change, at once: parts of other stages stay, so that they are made once."""
    every = [
        "selection={strategy: impactful, top_share: 0.5}",
        "positions={strategy: longrecipe, sentences_per_segment: [1, 2]}",
        "score={source: long-short, length: 64}",
        "index.samples=9",
        "context.train_length=50",
    ]
    found = Comparison.load(write(tmp_path, variants={"all": every}))
    recipe = next(found.trainings()).seeded()
    assert recipe.selection.strategy == "impactful"
    for stage in ("base", "tokenize"):
        assert stage_part(recipe, stage) == stage_part(found.shared, stage) | (
            {"seed": 4} if "seed" in stage_part(recipe, stage) else {}
        )
    same = next(found.trainings()).recipe
    for stage in ("base", "tokenize", "measure", "measure_rope"):
        assert stage_part(same, stage) == stage_part(found.shared, stage)


def test_the_recipe_may_be_a_file_beside_it_and_take_overrides(tmp_path, monkeypatch):
    (tmp_path / "shared.yaml").write_text(yaml.safe_dump(SHARED))
    path = write(tmp_path, recipe="shared.yaml")
    inline = Comparison.load(write(tmp_path), ["seed=11", "launch.threads=1"])
    write(tmp_path, recipe="shared.yaml")
    monkeypatch.chdir(tmp_path)
    for place in (path, "two.yaml"):
        found = Comparison.load(place, ["seed=11", "launch.threads=1"])
        assert found == inline
        assert {one.recipe.seed for one in found.trainings()} == {11}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"variants": {"base": []}}, "variants.base: this is what the untrained model is called; take another name"),
        ({"ablation": {"base": []}}, "ablation.base: this is what the untrained model is called"),
        ({"ablation": {"pose": []}}, "ablation.pose: a variant has this name; take another"),
        ({"seeds": [1, 1]}, "seeds [1, 1]: one stands twice, and would count twice"),
        ({"seeds": []}, "seeds: [] is not allowed"),
        ({"variants": {}}, "variants: {} is not allowed"),
        ({"reference": "other"}, "reference other is no variant; allowed: pose, plain"),
        ({"seed": 1}, "seed: unknown key; allowed: name, recipe, seeds, variants, ablation, reference"),
        ({"variants": {"A b": []}}, "A b"),
        ({"recipe": RECIPE}, "extend.steps is missing: all variants are trained for equally many steps"),
        ({"recipe": "nowhere.yaml"}, "nowhere.yaml: can't be read"),
        ({"variants": {"x": ["selection.strategy=impactful"]}}, "variants.x: recipe"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, changes, line):
    with pytest.raises(RecipeError) as caught:
        Comparison.load(write(tmp_path, **changes))
    message = str(caught.value)
    assert line in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "override",
    [
        "extend.steps=9",
        "extend.learning_rate=1e-5",
        "corpus.validation_share=0.5",
        "evaluation.documents=3",
        "context.target_length=64",
        "context={target_length: 128, train_length: 30}",
        "rope.type=yarn",
        "seed=3",
        "launch.threads=2",
        "indexes.samples=3",
    ],
)
def test_what_would_change_base_documents_or_steps_is_refused(tmp_path, override):
    with pytest.raises(RecipeError) as caught:
        Comparison.load(write(tmp_path, variants={"x": [override], "pose": ["positions.strategy=pose"]}))
    assert str(caught.value) == (
        f"comparison {tmp_path}/two.yaml: variants.x: {override}: a variant may change only selection, positions, "
        f"score, index, context.train_length, so that base, documents and steps are those of all; the rest is changed "
        f"in the shared recipe"
    )


def test_the_shipped_comparison_has_the_papers_variants_at_the_papers_shares():
    found = Comparison.load(ROOT / "recipes" / "compare-tiny.yaml")
    assert found.seeds == (1, 2, 3)
    assert found.shared.base == Recipe.load(ROOT / "recipes" / "copying-tiny.yaml").base
    assert found.reference == "longrecipe-random"
    positions = {name: recipe.positions.strategy for name, recipe in found.variants.items()}
    assert positions == {
        "full-length": "full",
        "rpes": "rpes",
        "pose": "pose",
        **{f"longrecipe-{name}": "longrecipe" for name in ("impactful", "digits", "random", "none")},
    }
    for name in ("impactful", "digits", "random", "none"):
        assert found.variants[f"longrecipe-{name}"].selection.strategy == name
    target = found.shared.context.target_length
    assert target == 4 * found.shared.base.window
    lengths = {name: recipe.context.train_length for name, recipe in found.variants.items()}
    assert lengths == dict.fromkeys(positions, 307) | {"full-length": 1024}
    shares = [recipe.context.train_length / target for recipe in found.ablation.values()]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4, 1], abs=0.001)
