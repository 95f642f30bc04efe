"""What only files can tell, before anything runs."""

import json
from pathlib import Path

import pytest
from all_keys import BASE

from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe import Recipe, check_inputs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def present(tmp_path):
    """Overrides under which every file is there: a model of 28 query heads and a window of 512."""
    (tmp_path / "model").mkdir()
    config = {"num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 512}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "text.jsonl").write_text("")
    sources = [f"{part}.sources.{n}.path={tmp_path}/text.jsonl" for part in ("corpus", "replay") for n in (0, 1)]
    questions = [f"evaluation.ruler.{name}.path={tmp_path}/text.jsonl" for name in ("squad", "hotpotqa")]
    tasks = f"evaluation.benchmarks.include_path={tmp_path}"
    return ["base=null", f"model.path={tmp_path}/model", "context.window=null", *sources, *questions, tasks]


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
    check_inputs(Recipe.parse(BASE, [*present, "corpus.sources.0={path: a/b, format: hub, weight: 1}"]))
    check_inputs(Recipe.parse(BASE, [*present, "model.path=someone/some-model"]))


@pytest.mark.parametrize("path", ["/nowhere/x.jsonl", "/nowhere/**/*.jsonl", "nowhere.jsonl", "{stdlib}/nowhere.txt"])
@pytest.mark.parametrize("key", ["corpus.sources.1.path", "replay.sources.0.path", "evaluation.ruler.squad.path"])
def test_a_missing_source_file_is_one_line(present, key, path):
    (line,) = problems(present, f"{key}={path!r}")
    assert f"{key}: no file at {path}" in line


def test_a_missing_directory_of_tasks_is_one_line(present):
    (line,) = problems(present, "evaluation.benchmarks.include_path=nowhere")
    assert "evaluation.benchmarks.include_path: nowhere is not a directory" in line


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
    lines = problems(present, "launch.processes=8", "launch.parallel=ulysses")
    (line,) = [line for line in lines if "query heads" in line]
    assert "launch.parallel ulysses: 8 ranks can't split the 28 query heads" in line
    assert line.endswith("allowed: 1, 2, 4, 7, 14, 28 ranks, or ring, or usp with such a ulysses_degree")


def test_every_missing_file_gets_its_own_line(present):
    lines = problems(present, "corpus.sources.0.path=/no/a", "replay.sources.1.path=/no/b", "model.path=/no/c")
    assert len(lines) == 3


def test_an_engine_that_is_not_there_is_one_line(present, monkeypatch):
    monkeypatch.setenv("LONGRECIPE_ENGINE", "rya")
    (line,) = problems(present)
    assert "LONGRECIPE_ENGINE=rya" in line
    assert line.endswith("allowed: processes, ray")
    check_inputs(Recipe.parse(BASE, [*present, "launch.engine=processes"]))
    monkeypatch.setenv("LONGRECIPE_ENGINE", "ray")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "prefect_ray" else name)
    (line,) = problems(present)
    assert "launch.engine: ray is not installed" in line


def test_lora_without_peft_is_one_line(present, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "peft" else name)
    (line,) = problems(present)
    assert line.endswith("extend.lora, anneal.lora, score.warmup.lora: peft is not installed; pip install '.[lora]'")
    (line,) = problems(present, "extend.lora=null", "score.warmup.lora=null")
    assert ": anneal.lora: peft" in line
    check_inputs(Recipe.parse(BASE, [*present, *(f"{s}.lora=null" for s in ("extend", "anneal", "score.warmup"))]))
