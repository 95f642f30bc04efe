"""Query heads of hub models, before anything is downloaded."""

import json
from pathlib import Path

import pytest

from longrecipe_core.cost.heads import check_known_heads
from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe import Recipe

QWEN = Path(__file__).resolve().parents[3] / "recipes" / "qwen2-7b-80k.yaml"
USP = "launch={processes: 16, parallel: usp, ulysses_degree: 8}"


@pytest.fixture(autouse=True)
def _no_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))


def recipe(*overrides: str) -> Recipe:
    return Recipe.load(QWEN, overrides)


@pytest.mark.parametrize("launch", [USP, "launch={processes: 8, parallel: ulysses}"])
def test_heads_of_a_well_known_model_that_the_ranks_cant_split_are_one_line(launch):
    with pytest.raises(RecipeError) as error:
        check_known_heads(recipe(launch))
    (line,) = str(error.value).splitlines()
    assert line.startswith("recipe qwen2-7b-80k: launch.parallel u")
    assert "8 ranks can't split the 28 query heads of Qwen/Qwen2-7B" in line
    assert "allowed: 1, 2, 4, 7, 14, 28 ranks" in line


def test_what_they_can_split_passes():
    check_known_heads(recipe("launch={processes: 8, parallel: ring}"))
    check_known_heads(recipe("launch={processes: 4, parallel: ulysses}"))
    check_known_heads(recipe(USP, "model.path=meta-llama/Meta-Llama-3-8B"))  # 32 heads


def test_a_config_in_the_hub_s_cache_tells(tmp_path):
    unknown = recipe(USP, "model.path=someone/some-model")
    check_known_heads(unknown)  # nothing tells its heads here
    snapshot = tmp_path / "models--someone--some-model" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    sizes = {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 80, "vocab_size": 97}
    (snapshot / "config.json").write_text(json.dumps(sizes | {"num_attention_heads": 12}))
    with pytest.raises(RecipeError, match="8 ranks can't split the 12 query heads of someone/some-model"):
        check_known_heads(unknown)
