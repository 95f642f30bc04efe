"""A comparison cut down to seconds: two variants, two seeds, four steps of a model of 30k parameters."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from accelerate.state import AcceleratorState
from smallest_recipe import RECIPE

from flows.compare import compare
from flows.resume import comparison_line
from longrecipe_core import launching
from longrecipe_core.artifacts import ArtifactStore, RunRecords
from longrecipe_core.evaluation.evaluate import evaluate
from longrecipe_core.evaluation.job import EvaluationJob
from longrecipe_core.evaluation.seeds_rows import COLUMNS
from longrecipe_core.recipe import Recipe
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.loop import train
from tasks.run import Run

FIRST, SECOND = "sentences", "full-length"
FULL = ["context.train_length=128", "positions.strategy=full", "selection.strategy=none"]
SEEDS = (1, 2)


@pytest.fixture(scope="module")
def jobs_here():
    """Jobs run in this process: a dozen starts of Python with torch would be most of the time."""

    def train_here(job, **_):
        train(TrainingJob.model_validate_json(job.read_text()))
        AcceleratorState._reset_state(reset_partial_state=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr(launching, "launch_training", train_here)
        patch.setattr(
            launching,
            "launch_evaluation",
            lambda job, **_: evaluate(EvaluationJob.model_validate_json(job.read_text())),
        )
        yield


@pytest.fixture(scope="module")
def compared(jobs_here, first_run, recipe_file, tmp_path_factory):
    """The file, a copy of the first run's store (so that the base is there), the output, and what came back."""
    root = tmp_path_factory.mktemp("compare")
    shutil.copytree(first_run[0], root / "store")
    file = root / "compare.yaml"
    content = {
        "name": "two",
        "recipe": str(recipe_file),
        "seeds": list(SEEDS),
        "reference": FIRST,
        "variants": {FIRST: ["selection.strategy=random"], SECOND: FULL},
        "ablation": {"all-of-it": FULL},
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    overrides = ["evaluation.passkey={distances: [4, 20], trials: 2}", "launch.workers=1"]
    given = {"comparison": str(file), "overrides": overrides, "store": str(root / "store"), "output": str(root / "out")}
    return given, compare(**given)


def outcomes(compared, *stages):
    return [outcome for outcome in compared.summary.outcomes if outcome.stage in stages]


def evaluation(ref) -> list[dict]:
    return pq.read_table(Path(ref.uri) / "evaluation.parquet").to_pylist()


def cells(page: str, title: str) -> dict[str, dict[str, str]]:
    """One table of the page: by variant and column."""
    lines = page.partition(f"**{title}")[2].splitlines()[2:]
    lines = lines[: [*lines, ""].index("")]  # of the page's last table, to its end
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(table[0], row, strict=True)) for row in table[2:]}


def test_each_variant_and_seed_is_trained_and_measured_once(compared):
    _, found = compared
    statuses = [(outcome.stage, outcome.status) for outcome in found.summary.outcomes]
    one = [("index", "ran"), ("extend", "ran"), ("measure", "ran")]
    again = [(stage, "hit") for stage, _ in one]  # the ablation's is the second variant's with the first seed
    before = [("base", "hit"), ("tokenize", "hit"), ("measure", "ran"), ("measure_rope", "ran")]
    assert statuses == [*before, *one * 4, *again]
    assert found.models.keys() == {FIRST, SECOND, "all-of-it"}
    assert found.models["all-of-it"] == {1: found.models[SECOND][1]}
    assert len({uri for by_seed in found.models.values() for uri in by_seed.values()}) == 4
    assert len(found.summary.to_json()["stages"]) == len(statuses)


def test_all_are_measured_on_the_same_documents_with_the_shared_seed(compared):
    given, found = compared
    store = ArtifactStore(given["store"])
    measured = outcomes(found, "measure", "measure_rope")
    evaluations = [evaluation(outcome.ref) for outcome in measured]
    for rows in evaluations:
        assert [(row["start"], row["count"], row["seed"]) for row in rows] == [
            (row["start"], row["count"], 2027) for row in evaluations[0]
        ]
    parts = [store.manifest_of(outcome.ref).recipe for outcome in measured]
    assert all({**part, "rope": 0} == {**parts[0], "rope": 0} for part in parts)
    # Index and extension have the training's seed, and nothing before them.
    seeds = [store.manifest_of(outcome.ref).recipe["seed"] for outcome in outcomes(found, "index", "extend")]
    assert seeds == [1, 1, 1, 1, 2, 2, 2, 2, 1, 1]
    assert store.manifest_of(outcomes(found, "base")[0].ref).recipe["seed"] == 2027


def test_the_tables_are_plain_means_of_the_evaluations(compared):
    given, found = compared
    page = (Path(given["output"]) / "comparison.md").read_text()
    measured = dict(
        zip(["base", "rope", "s1", "f1", "s2", "f2"], outcomes(found, "measure", "measure_rope"), strict=False)
    )
    nll = {
        name: {row["start"]: row["value"] for row in evaluation(outcome.ref) if row["measure"] == "nll"}
        for name, outcome in measured.items()
    }
    by_position = cells(page, "NLL, nats per token, at positions")
    assert set(by_position) == {"base", "base, RoPE change only", FIRST, SECOND}
    for start, column in ((0, "0–31"), (96, "96–127")):
        assert by_position["base"][column] == f"{nll['base'][start]:.4f}"
        for variant, letter in ((FIRST, "s"), (SECOND, "f")):
            values = np.array([nll[f"{letter}1"][start], nll[f"{letter}2"][start]])
            error = values.std(ddof=1) / np.sqrt(2)
            assert by_position[variant][column] == f"{values.mean():.4f} ± {error:.4f}"
    # The window of 32 tokens is the first bucket, the loss beyond it the mean of three buckets of 32 tokens each.
    differences = [nll[f"f{seed}"][0] - nll[f"s{seed}"][0] for seed in SEEDS]
    held = cells(page, f"Minus {FIRST}")
    assert set(held) == {SECOND}
    assert held[SECOND]["NLL inside the old window"].startswith(
        f"{np.mean(differences):+.4f} ± {np.std(differences, ddof=1) / np.sqrt(2):.4f}, "
    )
    beyond = [np.mean([nll[f"f{seed}"][start] for start in (32, 64, 96)]) for seed in SEEDS]
    summary = cells(page, "Per variant")
    assert summary[SECOND]["NLL beyond it"] == f"{np.mean(beyond):.4f} ± {np.std(beyond, ddof=1) / np.sqrt(2):.4f}"
    # Four steps of four sequences.
    assert summary[FIRST]["tokens trained"] == f"{4 * 4 * 40:,}"
    assert summary[SECOND]["tokens trained"] == f"{4 * 4 * 128:,}"
    assert summary["base"]["tokens trained"] == ""
    assert cells(page, "Ablation")["all-of-it"]["NLL beyond it"] == f"{beyond[0]:.4f}"


def test_files_and_record(compared):
    given, _ = compared
    output = Path(given["output"])
    assert (output / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    lines = (output / "rows.tsv").read_text().splitlines()
    assert lines[0].split("\t") == list(COLUMNS)
    # Five models' three sums, four buckets and two distances; two references' without sums; the window.
    assert len(lines) - 1 == 5 * (3 + 4 + 2) + 2 * (4 + 2) + 1
    record = next(iter(RunRecords(ArtifactStore(given["store"])).newest_first()))
    assert (record.flow, record.name, record.state) == ("compare", "two", "completed")


def test_again_everything_is_there_and_comes_out_the_same(compared):
    given, found = compared
    output = Path(given["output"])
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    again = compare(**given)
    assert {outcome.status for outcome in again.summary.outcomes} == {"hit"}
    assert again.models == found.models
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert json.loads(json.dumps(again.models)) != {}


def test_the_command_that_goes_on(tmp_path):
    run = Run(recipe=Recipe.parse(yaml.safe_dump(RECIPE)), store=str(tmp_path / "store"))
    given = {"comparison": "a b.yaml", "overrides": ["extend.steps=3"], "store": None, "output": "out"}
    assert comparison_line(run, given)[1:] == (
        ["compare", "a b.yaml", "--set", "extend.steps=3", "--store", str(tmp_path / "store"), "--output", "out"]
    )
