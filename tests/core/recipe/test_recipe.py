"""YAML and overrides in, a recipe out; every kind of mistake as one line."""

import contextlib
from pathlib import Path

import pytest
import yaml
from all_keys import BASE, MODEL, one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]


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


@settings(max_examples=60)
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


def test_an_override_of_what_stands_twice_by_a_yaml_alias_sets_one():
    aliased = yaml.safe_load(BASE)
    aliased["anneal"] = aliased["extend"]
    text = yaml.safe_dump(aliased)
    assert "*id" in text
    recipe = Recipe.parse(text, ["extend.learning_rate=0.25"])
    assert recipe.extend.learning_rate == 0.25
    assert recipe.anneal.learning_rate == Recipe.parse(BASE).extend.learning_rate


def test_overrides_apply_in_order_and_make_missing_sections():
    recipe = Recipe.parse(BASE, [*MODEL, "seed=1", "seed=2", "model.revision=null", "model.path=local"])
    assert recipe.seed == 2
    assert recipe.base is None
    assert (recipe.model.path, recipe.model.revision) == ("local", None)
    text = BASE.split("launch:")[0]
    assert Recipe.parse(text, ["launch.workers=3"]).launch.workers == 3
    assert Recipe.parse(text + "launch:", ["launch.workers=3"]).launch.workers == 3


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
    "copying beyond the target": (
        ["evaluation.copying={distances: [10, 993]}"],
        ["evaluation.copying: distance 993 and two spans of 16", "1025 tokens", "context.target_length 1024"],
    ),
    "minimum above the target": (
        ["evaluation.minimum_length=1025"],
        ["evaluation.minimum_length 1025", "context.target_length 1024"],
    ),
    "some weights": (["corpus.sources.0.weight=null"], ["corpus", "weights [None, 1.0]", "every source"]),
    "weight of replay": (["replay.sources.0.weight=1"], ["replay.sources.0.weight: unknown key"]),
    "weight of nothing": (["corpus.sources.0.weight=0"], ["corpus.sources.0.weight: 0", "greater than 0"]),
    "filter that leaves nothing": (
        ["corpus.minimum_tokens=100001"],
        ["minimum_tokens 100001", "maximum_tokens 100000"],
    ),
    "no document long enough": (
        ["corpus.maximum_tokens=299"],
        ["corpus.maximum_tokens 299", "below 300, context.train_length"],
    ),
    "no document to evaluate": (
        ["corpus.maximum_tokens=499"],
        ["corpus.maximum_tokens 499", "below 500, evaluation.minimum_length"],
    ),
    "no document to warm up on": (
        ["corpus.maximum_tokens=1023"],
        ["corpus.maximum_tokens 1023", "below 1024, context.target_length"],
    ),
    "all documents are long": (
        ["corpus.upsampling.longer_than=299"],
        ["corpus.upsampling.longer_than 299", "context.train_length 300"],
    ),
    "no document is long": (
        ["corpus.upsampling.longer_than=100000"],
        ["corpus.upsampling.longer_than 100000", "corpus.maximum_tokens 100000"],
    ),
    "warmup without end": (["score.warmup.steps=null", "score.warmup.warmup_steps=0"], ["score", "warmup.steps"]),
    "nothing has a longer context": (
        ["score={source: long-short, length: 3}"],
        ["score", "short_length 2", "length 3", "4 or more"],
    ),
    "no such device": (["launch.score_devices=[gpu, cpu]"], ["launch.score_devices.0: 'gpu'", "auto|cpu|cuda"]),
    "similarity of 1": (["corpus.similarity=1"], ["corpus.similarity: 1", "less than 1"]),
    "impactful without score": (["score=null"], ["selection.strategy impactful", "score", "not given"]),
    "score without use": (["selection.strategy=digits"], ["selection.strategy", "digits", "score given"]),
    "warmup without training": (["score.warmup=null"], ["score", "source warmup", "warmup"]),
    "training without warmup": (["score.source=long-short"], ["score", "source long-short"]),
    "model without path": (["score={source: model}"], ["score", "source model"]),
    "short context without use": (["score.short_length=10"], ["score", "short_length 10", "warmup"]),
    "short context too long": (
        ["score={source: long-short, length: 64, short_length: 64}"],
        ["short_length 64", "length 64", "2..62"],
    ),
    "scored past the target": (["score.length=1025"], ["score.length 1025", "context.target_length 1024"]),
    "warmup batch": (
        ["launch.micro_batch=8", "score.warmup.global_batch=9"],
        ["score.warmup.global_batch 9", "multiple of 8"],
    ),
    "gather and selection": (["positions.strategy=gather"], ["gather", "selection.strategy impactful", "none"]),
    "right point past the sample": (
        ["positions={strategy: longrecipe-fixed, right_point: 301}"],
        ["positions.right_point 301", "context.train_length 300", "1..300"],
    ),
    "ends longer than the sample": (
        ["positions={strategy: cream, cream_head: 150}"],
        ["positions.cream_head 150", "context.train_length 300", "1..149"],
    ),
    "unknown engine": (["launch.engine=dask"], ["launch.engine: 'dask'", "processes"]),
    "nothing to merge": (["merge={base_weight: 0, trained_weight: 0}"], ["merge", "base_weight", "both 0"]),
    "theta without type": (["rope.theta=5e5"], ["rope", "theta 500000.0", "ntk"]),
    "type without theta": (["rope={type: theta}"], ["rope", "type theta", "None"]),
    "factor without meaning": (["rope.type=none"], ["rope", "factor 4.0", "none"]),
    "prompt alone": (["corpus.sources.1.response_column=null"], ["corpus.sources.1", "response_column"]),
    "ids alone": (["corpus.sources.0.tokenizer=null"], ["corpus.sources.0", "ids_column and tokenizer"]),
    "ids in plain text": (["corpus.sources.0.format=text"], ["corpus.sources.0", "ids_column", "jsonl"]),
    "degree and query heads": (
        ["launch.processes=3", "launch.parallel=ulysses"],
        ["launch.parallel ulysses", "3 ranks", "4 query heads", "1, 2, 4", "ring", "usp"],
    ),
    "degree and processes": (
        ["launch={processes: 4, parallel: ring, sequence_degree: 3}"],
        ["sequence_degree 3", "processes 4"],
    ),
    "degree of usp": (
        ["launch={processes: 4, parallel: usp, ulysses_degree: 3}"],
        ["ulysses_degree 3", "4 ranks that share a sequence"],
    ),
    "ulysses degree of ring": (
        ["launch={processes: 4, parallel: ring, ulysses_degree: 2}"],
        ["ulysses_degree 2", "no meaning with parallel ring"],
    ),
    "degree of local": (["launch.sequence_degree=2"], ["sequence_degree 2", "parallel local"]),
    "a sequence among one": (["launch.parallel=ring"], ["parallel ring", "processes 1: local"]),
    "unknown parallel mode": (["launch.parallel=rign"], ["launch.parallel: 'rign'", "dist-flash"]),
    "machines and processes": (["launch={processes: 3, machines: 2}"], ["machines 2", "processes 3"]),
    "offload of nothing": (["launch.cpu_offload=true"], ["cpu_offload", "fsdp2 or zero3"]),
    "random weights frozen": (["base.training.lora={rank: 4}"], ["base", "training.lora", "allowed: null"]),
    "low-rank updates under DeepSpeed": (
        ["launch={processes: 2, sharding: zero3}"],
        ["extend.lora", "zero3", "allowed with it: none, fsdp2"],
    ),
    "dropout of low-rank updates": (["extend.lora.dropout=0.1"], ["extend.lora.dropout: unknown key"]),
    "packed samples apart in a ring": (
        ["launch={processes: 2, parallel: ring}", "replay.attention_across_samples=false"],
        ["attention_across_samples false", "ring", "local, ulysses"],
    ),
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
    "first samples of several lengths": (
        ["evaluation.benchmarks.lengths=[512, 1024]"],
        ["benchmarks", "limit 5", "all of length 512"],
    ),
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
        (BASE.replace("limit: 5,", "limit: 5, limit: 5,", 1), ["'limit' stands twice"]),
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


@settings(max_examples=150)
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
