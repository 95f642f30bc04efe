"""The recipe: shipped files against the paper, every kind of mistake as one line, and which key decides which stage."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe import Recipe, check_inputs, stage_part

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

# Every key is written out, so that walking this text finds every leaf; one source of each kind.
BASE = """
name: all-keys
seed: 2027
base:
  vocabulary_size: 512
  hidden_size: 128
  intermediate_size: 344
  layers: 4
  query_heads: 4
  kv_heads: 4
  window: 256
  rope_theta: 10000.0
  training:
    {learning_rate: 3e-3, schedule: linear, warmup_steps: 3, steps: 50, epochs: 1, global_batch: 8,
     betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.1, clip: 1.0, precision: fp32}
context: {target_length: 1024, train_length: 300, window: 256}
rope: {type: ntk, theta: null, factor: 4.0}
corpus:
  sources:
    - {path: SECRET-ids, format: jsonl, subset: one, split: train, revision: SECRET-r1, text_column: text,
       prompt_column: null, response_column: null, ids_column: ids, tokenizer: SECRET-tokenizer, limit: 5}
    - {path: SECRET-prompts, format: jsonl, subset: one, split: train, revision: SECRET-r2, text_column: text,
       prompt_column: question, response_column: answer, ids_column: null, tokenizer: null, limit: 5}
  validation_share: 0.05
selection: {strategy: digits}
positions: {strategy: longrecipe, sentences_per_segment: [1, 1], chunks: 2, sentence_ends: ".!?\\n"}
index: {samples: 100}
extend:
  {learning_rate: 1e-3, schedule: linear, warmup_steps: 3, steps: 50, epochs: 1, global_batch: 8,
   betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.1, clip: 1.0, precision: fp32}
replay:
  sources:
    - {path: SECRET-replay, format: jsonl, subset: one, split: train, revision: SECRET-r3, text_column: text,
       prompt_column: question, response_column: answer, ids_column: null, tokenizer: null, limit: 5}
    - {path: SECRET-replay-ids, format: jsonl, subset: one, split: train, revision: SECRET-r4, text_column: text,
       prompt_column: null, response_column: null, ids_column: ids, tokenizer: SECRET-tokenizer, limit: 5}
  separator: "\\n"
  loss_on_prompt: true
  attention_across_samples: true
anneal:
  {learning_rate: 1e-4, schedule: linear, warmup_steps: 3, steps: 50, epochs: 1, global_batch: 8,
   betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.1, clip: 1.0, precision: fp32}
merge: {base_weight: 0.5, trained_weight: 0.5, dtype: base}
evaluation:
  {documents: 32, minimum_length: 500, buckets: 8, precision: fp32, passkey: {distances: [100, 200], trials: 20}}
launch:
  {processes: 1, micro_batch: 1, ulysses_degree: 1, threads: 1, workers: 1, activation_checkpointing: none,
   loss_chunk: 512, checkpoint_every: 50, checkpoints_kept: 2, collective_timeout: 1800}
"""
MODEL = ("base=null", "model={path: SECRET-model, revision: SECRET-r5, trust_remote_code: false}")


def one_line(text, *overrides):
    """The only line of the refusal."""
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text, overrides)
    (line,) = str(caught.value).splitlines()
    return line


# --- the shipped recipes -------------------------------------------------------------------------------------


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


# --- YAML and overrides --------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
tricky = st.sampled_from(
    [
        "5e-5",
        "12e4567",
        "1e5",
        "null",
        "yes",
        "1_000",
        "2020-01-01",
        "~",
        "0x1f",
        "=",
        "- a",
        "\x85",
        "\u2028",
        "\ufeff",
        "a\n",
        " b",
    ]
)


@settings(max_examples=60, deadline=None)
@given(words | tricky, words | tricky, st.floats(1e-30, 1e30), st.integers(1, 10**12), st.booleans())
def test_what_is_written_is_read_again(path, separator, rate, samples, flag):
    tree = yaml.safe_load(BASE.replace("1e-8", "1.0e-8"))
    tree["corpus"]["sources"][0]["path"] = path
    tree["corpus"]["sources"][0]["revision"] = path
    tree["replay"]["separator"] = separator
    tree["replay"]["loss_on_prompt"] = flag
    tree["extend"]["learning_rate"] = rate
    tree["index"]["samples"] = samples
    recipe = Recipe.model_validate(tree)
    again = Recipe.parse(recipe.to_yaml())
    assert again == recipe
    assert again.corpus.sources[0].revision == path
    assert again.replay.separator == separator
    assert again.extend.learning_rate == rate


def test_the_written_recipe_names_every_default():
    text = "\n".join(
        [
            "name: small",
            "model: {path: x}",
            "context: {target_length: 10, train_length: 3}",
            "corpus: {sources: [{path: a}]}",
            "extend: {learning_rate: 5e-5}",
            "replay: {sources: [{path: b}]}",
            "anneal: {learning_rate: 5e-6}",
        ]
    )
    tree = yaml.safe_load(Recipe.parse(text).to_yaml())
    assert tree["seed"] == 2027
    assert tree["base"] is None
    assert tree["extend"]["betas"] == [0.9, 0.999]
    assert tree["extend"]["steps"] is None
    assert tree["launch"]["processes"] == 1
    assert tree["corpus"]["sources"][0]["format"] == "text"
    assert tree["model"]["trust_remote_code"] is False


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("extend.learning_rate=5e-5", 5e-5),
        ("extend.learning_rate=5E-5", 5e-5),
        ("extend.learning_rate=1", 1.0),
        ("extend.learning_rate=.5", 0.5),
        ("extend.steps=1_000", 1000),
        ("extend.steps=null", None),
        ("extend.betas=[0.8, 0.95]", (0.8, 0.95)),
        ("extend.betas.1=0.5", (0.9, 0.5)),
        ("corpus.sources.1.path=a=b", "a=b"),
        ("corpus.sources.1.path='5e-5'", "5e-5"),
        ("corpus.sources.0.limit=null", None),
        (" merge.trained_weight = 0.25", 0.25),
        ("replay.loss_on_prompt=false", False),
        ("evaluation.passkey=null", None),
        ("evaluation.passkey.distances=[7]", (7,)),
        ("rope={type: none}", "none"),
        ("launch.workers=16", 16),
    ],
)
def test_an_override_sets_one_key(override, value):
    before = Recipe.parse(BASE).model_dump()
    after = Recipe.parse(BASE, [override]).model_dump()
    key = override.split("=")[0].strip()
    path = {"extend.betas.1": "extend.betas", "rope": "rope.type"}.get(key, key).split(".")
    node, plain = after, before
    for part in path[:-1]:
        node, plain = (tree[int(part) if part.isdigit() else part] for tree in (node, plain))
    assert node[path[-1]] == value
    if key != "rope":
        plain[path[-1]] = node[path[-1]]
        assert after == before


def test_overrides_apply_in_order_and_make_missing_sections():
    recipe = Recipe.parse(BASE, [*MODEL, "seed=1", "seed=2", "model.revision=null", "model.path=local"])
    assert recipe.seed == 2
    assert recipe.base is None
    assert (recipe.model.path, recipe.model.revision) == ("local", None)
    text = BASE.split("launch:")[0]
    assert Recipe.parse(text, ["launch.workers=3"]).launch.workers == 3
    assert Recipe.parse(text + "launch:", ["launch.workers=3"]).launch.workers == 3


# --- mistakes ------------------------------------------------------------------------------------------------

MISTAKES = {
    "unknown key at the top": (["contxt=1"], ["contxt: unknown key", "context", "launch"]),
    "unknown key in a section": (
        ["extend.lr=1"],
        ["extend.lr: unknown key", "learning_rate", "warmup_steps"],
    ),
    "unknown key two deep": (["base.training.lr=1"], ["base.training.lr: unknown key", "learning_rate"]),
    "unknown key under null": (
        ["evaluation.passkey.far=1"],
        ["evaluation.passkey.far: unknown", "distances"],
    ),
    "unknown key in a list": (
        ["corpus.sources.1.file=a"],
        ["corpus.sources.1.file: unknown key", "path, format"],
    ),
    "text for a number": (["extend.steps=many"], ["extend.steps: 'many'", "valid integer"]),
    "half a step": (["extend.steps=1.5"], ["extend.steps: 1.5", "valid integer"]),
    "yes for a number": (["extend.steps=yes"], ["extend.steps", "True", "number"]),
    "yes among numbers": (["extend.betas=[0.9, yes]"], ["extend.betas", "True", "number"]),
    "number for a flag": (["replay.loss_on_prompt=7"], ["replay.loss_on_prompt: 7", "valid boolean"]),
    "number for text": (["corpus.sources.0.path=7"], ["corpus.sources.0.path: 7", "valid string"]),
    "value for a section": (["extend=7"], ["extend: 7"]),
    "null for a section": (["corpus=null"], ["corpus: None"]),
    "section for a value": (["seed={a: 1}"], ["seed: {'a': 1}", "valid integer"]),
    "short list": (["extend.betas=[0.9]"], ["extend.betas.1"]),
    "long list": (["extend.betas=[0.9, 0.9, 0.9]"], ["extend.betas", "at most 2"]),
    "empty list": (["corpus.sources=[]"], ["corpus.sources", "at least 1"]),
    "missing key in a list": (["replay.sources=[{}]"], ["replay.sources.0.path: missing"]),
    "missing key": (["extend={}"], ["extend.learning_rate: missing", "peak learning rate"]),
    "unknown choice": (["positions.strategy=zebra"], ["positions.strategy: 'zebra'", "full", "longrecipe"]),
    "negative rate": (["extend.learning_rate=-5e-5"], ["extend.learning_rate: -5e-05", "greater than 0"]),
    "infinite rate": (["extend.learning_rate=.inf"], ["extend.learning_rate: inf", "finite"]),
    "NaN weight": (["merge.base_weight=.nan"], ["merge.base_weight: nan", "finite"]),
    "share above 1": (
        ["corpus.validation_share=1.5"],
        ["corpus.validation_share: 1.5", "less than or equal to 1"],
    ),
    "beta of 1": (["extend.betas=[0.9, 1]"], ["extend.betas.1: 1", "less than 1"]),
    "no step": (["anneal.steps=0"], ["anneal.steps: 0", "greater than or equal to 1"]),
    "bad name": (["name=With Space"], ["name: 'With Space'", "pattern"]),
    "sentences turned round": (["positions.sentences_per_segment=[3, 2]"], ["sentences_per_segment [3, 2]"]),
    "train above target": (
        ["context.train_length=1025"],
        ["train_length 1025 is above target_length 1024", "2..1024"],
    ),
    "target below the window": (
        ["context.target_length=512", "context.train_length=100", "context.window=600"],
        ["context.target_length: 512", "window 600", "600 and above"],
    ),
    "target below the base's window": (
        ["context={target_length: 200, train_length: 100}", "evaluation={}"],
        ["context.target_length: 200", "window 256", "256 and above"],
    ),
    "full and shorter": (["positions.strategy=full"], ["positions.strategy full", "300", "1024"]),
    "more chunks than tokens": (
        ["positions={strategy: pose, chunks: 301}"],
        ["positions.chunks 301", "context.train_length 300", "2..300"],
    ),
    "passkey beyond the target": (
        ["evaluation.passkey.distances=[10, 1024]"],
        ["evaluation.passkey.distances: 1024", "context.target_length 1024"],
    ),
    "minimum above the target": (
        ["evaluation.minimum_length=1025"],
        ["evaluation.minimum_length 1025", "context.target_length 1024"],
    ),
    "nothing to merge": (["merge={base_weight: 0, trained_weight: 0}"], ["merge", "base_weight", "both 0"]),
    "theta without type": (["rope.theta=5e5"], ["rope", "theta 500000.0", "ntk"]),
    "type without theta": (["rope={type: theta}"], ["rope", "type theta", "None"]),
    "factor without meaning": (["rope.type=none"], ["rope", "factor 4.0", "none"]),
    "prompt alone": (["corpus.sources.1.response_column=null"], ["corpus.sources.1", "response_column"]),
    "ids alone": (["corpus.sources.0.tokenizer=null"], ["corpus.sources.0", "ids_column and tokenizer"]),
    "ids in plain text": (["corpus.sources.0.format=text"], ["corpus.sources.0", "ids_column", "jsonl"]),
    "degree and query heads": (
        ["launch.processes=3", "launch.ulysses_degree=3"],
        ["launch.ulysses_degree 3", "4 query heads", "1, 2, 4"],
    ),
    "degree and processes": (["launch.ulysses_degree=2"], ["ulysses_degree 2", "processes 1"]),
    "batch and micro batch": (["launch.micro_batch=3"], ["global_batch 8", "multiple of 3"]),
    "batch and processes": (
        ["anneal.global_batch=9", "launch.processes=2"],
        ["anneal.global_batch 9", "multiple of 2"],
    ),
    "heads and hidden size": (
        ["base.query_heads=3", "base.kv_heads=3"],
        ["base", "hidden_size 128", "query_heads 3"],
    ),
    "kv heads": (["base.kv_heads=3"], ["base", "kv_heads 3", "query_heads 4"]),
    "both model and base": (["model.path=x"], ["exactly one of model", "base"]),
    "neither": (["base=null"], ["exactly one of model", "base"]),
    "override without value": (["seed"], ["--set seed", "section.key=value"]),
    "override without key": (["=1"], ["--set =1", "section.key=value"]),
    "override with a hole": (["a..b=1"], ["--set a..b=1", "section.key=value"]),
    "override below a value": (["seed.x=1"], ["--set seed.x=1", "seed is a value"]),
    "override beyond a list": (["corpus.sources.2.path=x"], ["--set corpus.sources.2.path=x", "0..1"]),
    "override before a list": (["corpus.sources.-1.path=x"], ["-1 is not an entry", "0..1"]),
    "override of a strange digit": (["corpus.sources.²=x"], ["² is not an entry", "0..1"]),
    "override that is no YAML": (["seed=["], ["--set seed=[", "not YAML"]),
    "override that is no date": (["name=2020-13-45"], ["--set name=2020-13-45", "not YAML"]),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_would_do(kind):
    overrides, fragments = MISTAKES[kind]
    line = one_line(BASE, *overrides)
    for fragment in fragments:
        assert fragment in line


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (BASE + "seed: 3\n", ["'seed' stands twice", "line"]),
        (BASE.replace("layers: 4", "layers: 4\n  layers: 5"), ["'layers' stands twice"]),
        (BASE.replace("limit: 5}", "limit: 5, limit: 5}", 1), ["'limit' stands twice"]),
        ("- 1\n- 2\n", ["keys and values", "list"]),
        ("", ["keys and values", "NoneType"]),
        ("seed", ["keys and values", "str"]),
        ("a: [", ["not YAML"]),
        ("a: !!python/object:os.system {}", ["not YAML"]),
        ("[1, 2]: 3", ["not YAML"]),
        ("a: 2020-13-45", ["not YAML"]),
        ("a: !!int x", ["not YAML"]),
        ("[" * 2000, ["not YAML"]),
        (BASE + "7: 3\n", ["7", "Keys should be strings"]),
    ],
)
def test_a_file_that_holds_no_recipe_is_one_line(text, fragments):
    line = one_line(text)
    assert line.startswith("recipe ")
    for fragment in fragments:
        assert fragment in line


def test_every_mistake_gets_its_own_line():
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(BASE, ["seed=-1", "extend.lr=1", "merge.dtype=fp8"], origin="mine.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("recipe mine.yaml: ") for line in lines)


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(["", "name=", "corpus."]))
def test_nothing_but_a_recipe_error_ever_comes_out(text, front):
    for attempt in (lambda: Recipe.parse(front + text), lambda: Recipe.parse(BASE, [front + text])):
        with contextlib.suppress(RecipeError):
            attempt()


def test_a_missing_file_and_one_that_is_no_text(tmp_path):
    for path in (tmp_path / "nowhere.yaml", tmp_path):
        with pytest.raises(RecipeError) as caught:
            Recipe.load(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(RecipeError, match="can't be read"):
        Recipe.load(tmp_path / "binary.yaml")


# --- what only files can tell --------------------------------------------------------------------------------


@pytest.fixture
def present(tmp_path):
    """Overrides under which every file is there: a model of 28 query heads and a window of 512."""
    (tmp_path / "model").mkdir()
    config = {"num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 512}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "text.jsonl").write_text("")
    sources = [f"{part}.sources.{n}.path={tmp_path}/text.jsonl" for part in ("corpus", "replay") for n in (0, 1)]
    return ["base=null", f"model.path={tmp_path}/model", "context.window=null", *sources]


def problems(overrides, *more):
    with pytest.raises(RecipeError) as caught:
        check_inputs(Recipe.parse(BASE, [*overrides, *more]))
    return str(caught.value).splitlines()


def test_inputs_that_are_there_pass(present, tmp_path):
    check_inputs(Recipe.parse(BASE, present))
    check_inputs(Recipe.parse(BASE, [*present, f"corpus.sources.0.path={tmp_path}/*.jsonl"]))
    check_inputs(Recipe.parse(BASE, [*present, f"corpus.sources.0.path={tmp_path}"]))
    check_inputs(Recipe.parse(BASE, [*present, "corpus.sources.0.path='{stdlib}/**/*.py'"]))
    # Remote ones are looked at by the stage that reads them.
    check_inputs(Recipe.parse(BASE, [*present, "corpus.sources.0.path=s3://nowhere/x.jsonl"]))
    check_inputs(Recipe.parse(BASE, [*present, "corpus.sources.0={path: a/b, format: hub}"]))
    check_inputs(Recipe.parse(BASE, [*present, "model.path=someone/some-model"]))


@pytest.mark.parametrize("path", ["/nowhere/x.jsonl", "/nowhere/**/*.jsonl", "nowhere.jsonl", "{stdlib}/nowhere.txt"])
@pytest.mark.parametrize("key", ["corpus.sources.1.path", "replay.sources.0.path"])
def test_a_missing_source_file_is_one_line(present, key, path):
    (line,) = problems(present, f"{key}={path!r}")
    assert f"{key}: no file at {path}" in line


def test_a_missing_model_is_one_line(present, tmp_path):
    for path in (str(tmp_path / "nowhere"), "./nowhere", "models/nowhere", "~/nowhere-at-all"):
        (line,) = problems(present, f"model.path={path}")
        assert f"model.path: {path} is not a directory" in line
    (tmp_path / "hollow").mkdir()
    (line,) = problems(present, f"model.path={tmp_path}/hollow")
    assert "model.path" in line
    assert "no config.json" in line
    (tmp_path / "hollow" / "config.json").write_text("{")
    (line,) = problems(present, f"model.path={tmp_path}/hollow")
    assert "is not JSON" in line


def test_a_model_in_the_home_directory_is_found(present, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    check_inputs(Recipe.parse(BASE, [*present, "model.path=~/model"]))


def test_a_target_below_the_models_window_is_one_line(present):
    (line,) = problems(present, "context={target_length: 400, train_length: 100}", "evaluation={}")
    assert "context.target_length: 400" in line
    assert "window 512" in line
    assert "512 and above" in line


def test_a_degree_that_cant_split_the_models_heads_is_one_line(present):
    lines = problems(present, "launch.processes=8", "launch.ulysses_degree=8")
    (line,) = [line for line in lines if "query heads" in line]
    assert "launch.ulysses_degree 8 does not divide the 28 query heads" in line
    assert line.endswith("allowed: 1, 2, 4, 7, 14, 28")


def test_every_missing_file_gets_its_own_line(present):
    lines = problems(present, "corpus.sources.0.path=/no/a", "replay.sources.1.path=/no/b", "model.path=/no/c")
    assert len(lines) == 3


# --- which key decides which stage ---------------------------------------------------------------------------

STAGES = ["base", "tokenize", "index", "extend", "replay", "anneal", "merge", "evaluate", "report"]

TRAINING = {
    "learning_rate": "7e-4",
    "schedule": "cosine",
    "warmup_steps": "4",
    "steps": "51",
    "epochs": "2",
    "global_batch": "16",
    "betas": "[0.9, 0.95]",
    "epsilon": "1e-6",
    "weight_decay": "0",
    "clip": "2",
    "precision": "bf16",
}
SOURCE = {
    "path": ("other", ""),
    "format": ("parquet", "+"),
    "subset": ("two", "+"),
    "split": ("test", "+"),
    "revision": ("other", ""),
    "text_column": ("body", "+"),
    "prompt_column": ("other", "+"),
    "response_column": ("other", "+"),
    "ids_column": ("other", "+"),
    "tokenizer": ("other", ""),
    "limit": ("6", "+"),
}
# Key: the changed value, and every stage whose part must change by it. Typed by hand from design.md: what decides
# a result is in, what only says where or how fast is out, and a path enters by content.
DECIDES = {
    "name": ("other", "report"),
    "seed": ("1", "base index extend replay anneal evaluate"),
    "model.path": ("other", ""),
    "model.revision": ("other", ""),
    "model.trust_remote_code": ("true", "tokenize index extend replay anneal evaluate"),
    "base.vocabulary_size": ("513", "base"),
    "base.hidden_size": ("64", "base"),
    "base.intermediate_size": ("128", "base"),
    "base.layers": ("5", "base"),
    "base.query_heads": ("8", "base"),
    "base.kv_heads": ("2", "base"),
    "base.window": ("128", "base"),
    "base.rope_theta": ("5e5", "base"),
    **{f"base.training.{key}": (value, "base") for key, value in TRAINING.items()},
    "context.target_length": ("2048", "index extend evaluate"),
    "context.train_length": ("200", "index extend replay anneal evaluate"),
    "context.window": ("128", "index extend evaluate"),
    "rope.type": ("yarn", "extend evaluate"),
    "rope.theta": ("{type: theta, theta: 5e5}", "extend evaluate"),
    "rope.factor": ("5", "extend evaluate"),
    **{f"corpus.sources.{key}": (v, "base tokenize" if part else "") for key, (v, part) in SOURCE.items()},
    "corpus.validation_share": ("0.1", "base tokenize"),
    "selection.strategy": ("random", "index"),
    "positions.strategy": ("pose", "index"),
    "positions.sentences_per_segment": ("[1, 2]", "index"),
    "positions.chunks": ("3", "index"),
    "positions.sentence_ends": ("'.'", "index"),
    "index.samples": ("101", "index"),
    **{f"extend.{key}": (value, "extend") for key, value in TRAINING.items()},
    **{f"replay.sources.{key}": (v, "replay" if part else "") for key, (v, part) in SOURCE.items()},
    "replay.separator": ("' '", "replay"),
    "replay.loss_on_prompt": ("false", "anneal"),
    "replay.attention_across_samples": ("false", "anneal"),
    **{f"anneal.{key}": (value, "anneal") for key, value in TRAINING.items()},
    "merge.base_weight": ("0.25", "merge"),
    "merge.trained_weight": ("0.75", "merge"),
    "merge.dtype": ("fp32", "merge"),
    "evaluation.documents": ("33", "evaluate"),
    "evaluation.minimum_length": ("501", "evaluate"),
    "evaluation.buckets": ("9", "evaluate"),
    "evaluation.precision": ("bf16", "evaluate"),
    "evaluation.passkey.distances": ("[100]", "evaluate"),
    "evaluation.passkey.trials": ("21", "evaluate"),
    "launch.processes": ("2", ""),
    "launch.micro_batch": ("2", ""),
    "launch.ulysses_degree": ("{processes: 2, ulysses_degree: 2}", ""),
    "launch.threads": ("2", ""),
    "launch.workers": ("3", ""),
    "launch.activation_checkpointing": ("full", ""),
    "launch.loss_chunk": ("100", ""),
    "launch.checkpoint_every": ("7", ""),
    "launch.checkpoints_kept": ("5", ""),
    "launch.collective_timeout": ("60", ""),
}


def leaves(tree, front=""):
    for key, value in tree.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                yield from leaves(entry, f"{front}{key}.")
        elif isinstance(value, dict):
            yield from leaves(value, f"{front}{key}.")
        else:
            yield f"{front}{key}"


def parts(recipe):
    return {stage: json.dumps(stage_part(recipe, stage), sort_keys=True) for stage in STAGES}


def test_the_table_has_every_key_of_the_recipe():
    """A new key needs a row: which stages' results does it decide?"""
    found = set(leaves(yaml.safe_load(Recipe.parse(BASE).to_yaml())))
    found |= set(leaves(yaml.safe_load(Recipe.parse(BASE, MODEL).to_yaml())))
    assert found - {"model", "base"} == set(DECIDES)


@pytest.mark.parametrize("key", DECIDES)
def test_a_key_changes_the_parts_of_its_stages_only(key):
    value, stages = DECIDES[key]
    start = list(MODEL) if key.startswith("model.") else []
    section, _, name = key.rpartition(".")
    if section.endswith(".sources"):
        # Ids stand in one of the two sources, prompts in the other.
        number = int((name in ("ids_column", "tokenizer")) != section.startswith("corpus"))
        changes = [f"{section}.{number}.{name}={value}"]
    else:
        changes = [f"{section}={value}" if value.startswith("{") else f"{key}={value}"]
    before = Recipe.parse(BASE, start)
    after = Recipe.parse(BASE, [*start, *changes])
    assert before != after
    old, new = parts(before), parts(after)
    assert {stage for stage in STAGES if old[stage] != new[stage]} == set(stages.split())


@pytest.mark.parametrize("start", [(), MODEL], ids=["base", "model"])
def test_no_path_enters_a_part(start):
    recipe = Recipe.parse(BASE, start)
    assert "SECRET" in recipe.to_yaml()
    assert "SECRET" not in "".join(parts(recipe).values())


def test_an_unknown_stage_has_no_part():
    with pytest.raises(KeyError):
        stage_part(Recipe.parse(BASE), "extent")


# --- the command line ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def longrecipe(tmp_path_factory):
    """Runs the command where prefect, torch and transformers can't be imported."""
    poison = tmp_path_factory.mktemp("poison")
    for name in ("prefect", "torch", "transformers", "datasets", "accelerate"):
        (poison / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported')")
    environment = {**os.environ, "PYTHONPATH": str(poison)}

    def call(*arguments, command=(sys.executable, "-m", "flows.cli")):
        return subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    assert call(command=(sys.executable, "-c", "import torch")).returncode == 1
    return call


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["recipes/nowhere.yaml"], "recipes/nowhere.yaml"),
        (["recipes/tiny-cpu.yaml", "--set", "extend.lr=5e-5"], "extend.lr: unknown key"),
        (["recipes/tiny-cpu.yaml", "--set", "corpus.sources.0.path=/nowhere/x"], "corpus.sources.0.path"),
    ],
)
def test_a_bad_recipe_ends_with_2_before_anything_heavy_is_imported(longrecipe, tmp_path, arguments, fragment):
    done = longrecipe("run", *arguments, "--store", str(tmp_path / "store"))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("longrecipe: ")
    assert fragment in line
    assert not (tmp_path / "store").exists()


def test_the_installed_command_refuses_likewise(longrecipe):
    script = Path(sys.executable).with_name("longrecipe")
    if not script.exists():
        pytest.skip("longrecipe is not installed as a command here")
    done = longrecipe("run", "recipes/tiny-cpu.yaml", "--set", "seed=-1", command=(str(script),))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "seed: -1" in done.stderr


def test_help_and_a_wrong_command_line(longrecipe):
    done = longrecipe("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in ("run", "plan", "verify"))
    done = longrecipe("run", "--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("RECIPE.yaml", "--set", "--store", "LONGRECIPE_STORE"))
    for wrong in ([], ["train"], ["run"]):
        done = longrecipe(*wrong)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
