"""Names as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longrecipe_core.recipe import Recipe
from tasks.names import artifact_key, flow_run_name, short_length, stage_run_name


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (24000, "24k"), (80000, "80k"), (128000, "128k"), (1000, "1k"), (38400, "38.4k"), (25600, "25.6k"),
        (1024, "1k"), (8192, "8k"), (131072, "128k"), (307, "307"), (4915, "4915"), (900, "900"), (1_048_576, "1024k"),
        (123_456_700, "123456.7k"),
    ],
)  # fmt: skip
def test_lengths(tokens, name):
    assert short_length(tokens) == name


@given(st.integers(1, 10**9) | st.integers(1, 10**5).map(lambda number: 128 * number))
def test_a_short_length_is_exact(tokens):
    name = short_length(tokens)
    number = name.removesuffix("k")
    whole, _, tenth = number.partition(".")
    if name == number:
        assert int(name) == tokens
    elif tenth:
        assert int(whole) * 1000 + int(tenth) * 100 == tokens
    else:
        assert tokens in (int(whole) * 1000, int(whole) * 1024)


def test_run_names():
    recipe = Recipe.load("recipes/llama3-8b-80k.yaml")
    assert flow_run_name(recipe) == "llama3-8b-80k · 24k→80k"
    assert stage_run_name("extend", recipe) == "extend · llama3-8b-80k · 24k→80k"
    assert stage_run_name("merge", recipe) == "merge · llama3-8b-80k · 0.5/0.5"
    assert stage_run_name("anneal", recipe) == "anneal · llama3-8b-80k · 24k"
    assert stage_run_name("evaluate", recipe) == "evaluate · llama3-8b-80k · 80k"
    assert stage_run_name("tokenize", recipe) == "tokenize · llama3-8b-80k"
    tiny = Recipe.load("recipes/tiny-cpu.yaml")
    assert stage_run_name("base", tiny) == "base · tiny-cpu · 256"
    assert stage_run_name("index", tiny) == "index · tiny-cpu · 307→1k"


def test_keys_are_what_prefect_takes():
    recipe = Recipe.load("recipes/tiny-cpu.yaml").model_copy(update={"name": "a.b_c-1"})
    assert artifact_key(recipe, "loss") == "a-b-c-1-loss"
