"""`longrecipe plan` as a program: its two parts, and readers that go away."""

import os
import subprocess
import sys
from pathlib import Path

from polling import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
TINY = "recipes/tiny-cpu.yaml"


def plan(environment, *arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "plan", *arguments],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE, **options,
    )  # fmt: skip


def test_a_line_per_stage_then_the_costs(environment):
    done = plan(environment, TINY, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    stages, costs = done.stdout.split("\n\n")
    assert [line.split()[1] for line in stages.splitlines()] == ["run"] * 9
    assert costs.splitlines()[0].split() == ["cost", "on", "1", "GPU", "base", "extend", "anneal"]


def test_a_reader_that_goes_away_is_no_traceback(environment):
    """As `plan | head` meets it: here the reader is gone before the first line, so that no race decides."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = plan(environment, TINY, stdout=writer)
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 141


def test_costs_are_told_though_the_hub_is_out_of_reach(environment):
    offline = environment | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = plan(offline, "recipes/llama3-8b-80k.yaml", stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith("longrecipe: ")
    assert len(done.stderr.splitlines()) == 1
    assert "hours on H100" in done.stdout
    assert "memory per GPU" in done.stdout


def test_a_model_of_unknown_shape_is_one_line_and_no_failure(environment, tmp_path):
    """A local directory whose config tells no shape: the stages are planned, the costs are not."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama", "num_attention_heads": 4}')
    tree = (ROOT / TINY).read_text()
    start, end = tree.index("base:"), tree.index("context:")
    recipe = tmp_path / "recipe.yaml"
    model = f"model: {{path: {tmp_path / 'model'}}}\n\n"
    recipe.write_text((tree[:start] + model + tree[end:]).replace("context: {", "context: {window: 256, "))
    done = plan(environment, str(recipe), stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    stages, costs = done.stdout.split("\n\n")
    assert len(stages.splitlines()) == 8
    assert costs.startswith(f"cost: {tmp_path / 'model' / 'config.json'}: the cost can't be told")
    assert len(costs.splitlines()) == 1
