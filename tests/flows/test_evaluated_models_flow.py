"""An evaluation of chosen models, and of others than the run's own; `longrecipe evaluate`."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.cli import parser
from flows.extend_context import extend_context
from longrecipe_core.corpus import train_tokenizer
from longrecipe_core.errors import EvaluationError, LongRecipeError
from longrecipe_core.evaluation.paired import paired_differences
from longrecipe_core.evaluation.table import text_table


def rows(directory: str | Path):
    return pq.read_table(Path(directory) / "evaluation.parquet").to_pylist()


def losses(directory: str | Path, model: str):
    return [row["value"] for row in rows(directory) if row["model"] == model and row["measure"] == "nll"]


@pytest.fixture
def foreign(first_run, tmp_path):
    """The extended model with the tokenizer of another family."""
    shutil.copytree(first_run[1].uri("extend"), tmp_path / "foreign")
    train_tokenizer(["0123456789 is a number."] * 3, 270, tmp_path / "foreign", model_max_length=128)
    return tmp_path / "foreign"


def test_chosen_models_and_others_are_measured_as_ever(first_run, recipe_file, store, tmp_path):
    made = first_run[1]
    shutil.copytree(made.uri("extend"), tmp_path / "copy")
    others = f"[{{name: copy, path: {tmp_path / 'copy'}}}, {{name: base with NTK, rope: {{type: ntk}}}}]"
    overrides = ["evaluation.stages=[merge, base]", f"evaluation.models={others}"]
    summary = extend_context(recipe=str(recipe_file), overrides=overrides, store=str(store))
    assert [outcome.stage for outcome in summary.outcomes if outcome.status == "ran"] == ["evaluate", "report"]

    before, now = made.uri("evaluate"), summary.uri("evaluate")
    assert list(dict.fromkeys(row["model"] for row in rows(now))) == [
        "base",
        "stage 2, merged",
        "copy",
        "base with NTK",
    ]
    for earlier, later in (
        ("base", "base"),
        ("stage 2, merged", "stage 2, merged"),
        ("stage 0, extended", "copy"),
        ("base, RoPE change only", "base with NTK"),  # the recipe's own change
    ):
        assert losses(now, later) == losses(before, earlier)

    differences = paired_differences(Path(now), "base")
    assert {row["model"] for row in differences} == {"stage 2, merged", "copy", "base with NTK"}
    own = [row["value"] for row in differences if row["model"] == "copy"]
    expected = [new - old for new, old in zip(losses(now, "copy"), losses(now, "base"), strict=True)]
    assert own == pytest.approx(expected, abs=1e-9)


def test_another_vocabulary_is_refused_before_anything_expensive(recipe_file, store, foreign):
    overrides = [f"evaluation.models=[{{name: x, path: {foreign}}}]", "index.samples=3"]
    with pytest.raises(EvaluationError, match=f"evaluation.models.x: {foreign}: has another vocabulary"):
        extend_context(recipe=str(recipe_file), overrides=overrides, store=str(store))
    assert len(list((store / "index").glob("*/manifest.json"))) == 1  # of the first run


def test_the_command_measures_any_one_model(first_run, recipe_file, store, foreign, tmp_path, capsys):
    def evaluate(model):
        arguments = parser().parse_args(["evaluate", str(recipe_file), str(model), "--store", str(store)])
        assert arguments.command(arguments) == 0
        return capsys.readouterr().out

    shutil.copytree(first_run[1].uri("extend"), tmp_path / "copy")
    out = evaluate(tmp_path / "copy")
    found = json.loads(out.splitlines()[-1])
    assert [(stage["stage"], stage["status"]) for stage in found["stages"]] == [
        ("base", "hit"),
        ("tokenize", "hit"),
        ("measure", "ran"),
    ]
    assert found["model"] == str(tmp_path / "copy")
    measured = found["stages"][-1]["uri"]
    assert losses(measured, "model") == losses(first_run[1].uri("evaluate"), "stage 0, extended")
    assert out.startswith(text_table(rows(measured)))
    assert json.loads(evaluate(tmp_path / "copy").splitlines()[-1])["stages"][-1]["status"] == "hit"

    with pytest.raises(EvaluationError, match=f"{foreign}: has another vocabulary"):
        evaluate(foreign)
    with pytest.raises(LongRecipeError, match="nowhere"):
        evaluate("/nowhere")
