"""The shipped recipes against the paper."""

from pathlib import Path

import pytest

from longrecipe_core.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if not path.stem.startswith("compare-"))


def test_the_seven_recipes_are_there():
    assert {path.stem for path in RECIPES} >= {
        "tiny-cpu",
        "smollm2-135m",
        "llama3-8b-80k",
        "llama3-8b-128k",
        "qwen2-7b-80k",
        "qwen2-7b-128k",
        "mistral-7b-80k",
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_valid_and_survives_being_written(path):
    recipe = Recipe.load(path)
    assert recipe.name == path.stem
    assert recipe.seed == 2027
    assert (recipe.merge.base_weight, recipe.merge.trained_weight) == (0.5, 0.5)
    assert recipe.model is None or not recipe.model.trust_remote_code
    assert recipe.anneal.learning_rate == pytest.approx(recipe.extend.learning_rate / 10)
    assert recipe.anneal.schedule == "linear"
    assert recipe.context.train_length == pytest.approx(0.3 * recipe.context.target_length, rel=0.01)
    assert Recipe.parse(recipe.to_yaml()) == recipe
    assert Recipe.parse(recipe.to_yaml()).to_yaml() == recipe.to_yaml()


@pytest.mark.parametrize(
    ("name", "base_theta", "window", "target", "train", "factor", "theta", "tokens"),
    [
        ("llama3-8b-80k", 5e5, 8192, 80_000, 24_000, 10, 48.9e6, 240e6),
        ("llama3-8b-128k", 5e5, 8192, 128_000, 38_400, 16, 131.5e6, 384e6),
        ("qwen2-7b-80k", 1e6, 32768, 80_000, 24_000, 4, 13.5e6, 240e6),
        ("qwen2-7b-128k", 1e6, 32768, 128_000, 38_400, 4, 13.5e6, 384e6),
        ("mistral-7b-80k", 1e6, 32768, 80_000, 24_000, 4, 13.5e6, 240e6),
    ],
)
def test_the_papers_numbers(name, base_theta, window, target, train, factor, theta, tokens):
    recipe = Recipe.load(ROOT / "recipes" / f"{name}.yaml")
    assert (recipe.context.window, recipe.context.target_length) == (window, target)
    assert recipe.context.train_length == train
    assert (recipe.rope.type, recipe.rope.factor) == ("ntk", factor)
    f = recipe.rope.factor
    assert base_theta * (f * f - (f - 1)) ** (128 / 126) == pytest.approx(theta, rel=5e-3)
    assert recipe.index.samples == 10_000
    assert recipe.index.samples * recipe.context.train_length == tokens
    assert (recipe.selection.strategy, recipe.positions.strategy) == ("digits", "longrecipe")
    assert recipe.positions.sentences_per_segment == (1, 1)
    assert recipe.extend.steps == 104
    assert recipe.extend.learning_rate == 5e-5
    assert recipe.anneal.learning_rate == 5e-6
    for stage in (recipe.extend, recipe.anneal):
        assert stage.global_batch == 96
        assert stage.betas == (0.9, 0.999)
        assert (stage.epsilon, stage.weight_decay, stage.precision) == (1e-8, 0.1, "bf16")
    assert recipe.replay.loss_on_prompt
    assert recipe.replay.attention_across_samples
    assert len(recipe.replay.sources) == 2


def test_mistrals_column_is_said_to_be_ours():
    assert "ours" in (ROOT / "recipes" / "mistral-7b-80k.yaml").read_text().split("name:")[0]
