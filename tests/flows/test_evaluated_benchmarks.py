"""Stage `evaluate` asks lm-eval of every model, and knows a recipe's own tasks by their files."""

import shutil
from pathlib import Path

from flows.extend_context import extend_context
from flows.parameters import parameters_of
from flows.plan import plan
from longrecipe_core.evaluation.table import read_rows
from longrecipe_core.recipe import Recipe
from tasks.run import Run

SHIPPED = Path(__file__).resolve().parents[2] / "recipes" / "benchmarks"


def test_benchmarks_are_in_the_table_of_every_model(store, recipe_file, tmp_path):
    own = shutil.copytree(SHIPPED, tmp_path / "own", ignore=shutil.ignore_patterns("__pycache__"))

    def recipe(directory):
        tasks = f"{{tasks: [capitals, capitals_written], include_path: {directory}, limit: 2}}"
        return Recipe.load(recipe_file, [f"evaluation.benchmarks={tasks}"])

    def planned(directory):
        return [line.stage for line in plan(Run(recipe=recipe(directory), store=str(store))) if line.status == "run"]

    summary = extend_context(**parameters_of(recipe(own)), store=str(store))
    assert [one.stage for one in summary.outcomes if one.status == "ran"] == ["evaluate", "report"]
    (measured,) = (one.ref for one in summary.outcomes if one.stage == "evaluate")
    rows = [row for row in read_rows(Path(measured.uri)) if row["measure"] == "benchmark"]
    models = ["base", "base, RoPE change only", "stage 0, extended", "stage 1, annealed", "stage 2, merged"]
    assert list(dict.fromkeys(row["model"] for row in rows)) == models
    assert [(row["task"], row["metric"], row["count"]) for row in rows if row["model"] == "base"] == [
        ("capitals", "acc", 2),
        ("capitals", "acc_norm", 2),
        ("capitals_written", "exact_match", 2),
    ]
    assert planned(shutil.copytree(own, tmp_path / "elsewhere")) == []
    (own / "capitals" / "capitals.jsonl").write_text(
        '{"country": "Kenya", "choices": ["Nairobi", "Lagos"], "answer": 0}'
    )
    assert planned(own) == ["evaluate", "report"]
