"""Every command in the README is run: as it stands where that takes seconds, made smaller by overrides where not."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from one_at_a_time import one_at_a_time
from shell_environment import shell_environment

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
FEW = {"steps": 2, "global_batch": 2, "warmup_steps": 0}
SHORT = [
    *("--set", "index.samples=8"),
    *(f"--set {stage}.{key}={value}" for stage in ("extend", "anneal") for key, value in FEW.items()),
    *("--set", "launch.micro_batch=1", "--set", "launch.threads=1", "--set", "evaluation.documents=2"),
]

TINY = [
    *(*SHORT, "--set", "base.training.steps=2", "--set", "base.training.warmup_steps=0"),
    *("--set", "launch.micro_batch=2", "--set", "corpus.sources.0.limit=60", "--set", "corpus.validation_share=0.3"),
    *("--set", "replay.sources.0.limit=300"),
]


def smaller(command: str, overrides: list[str]) -> str:
    return f"{command} {' '.join(overrides)}"


def shell(command: str, environment, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        ["bash", "-euc", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def last_line(done) -> dict:
    return json.loads(done.stdout.splitlines()[-1])


def test_every_command_of_the_readme_is_known_here():
    assert COMMANDS == [
        "make demo",
        "make test",
        ".venv/bin/longrecipe plan recipes/tiny-cpu.yaml",
        ".venv/bin/longrecipe run recipes/tiny-cpu.yaml",
        ".venv/bin/longrecipe run recipes/tiny-cpu.yaml --set merge.base_weight=0.3 --set merge.trained_weight=0.7",
        "make smollm2",
        ".venv/bin/longrecipe run recipes/smollm2-135m.yaml",
        ".venv/bin/longrecipe run recipes/tiny-cpu.yaml --set selection.strategy=impactful "
        "--set 'score={source: long-short, precision: fp32}'",
        ".venv/bin/longrecipe positions recipes/tiny-cpu.yaml",
        ".venv/bin/longrecipe run recipes/llama3-8b-80k.yaml --set launch.processes=2",
        "make ui",  # in test_make_ui.py
    ]


def test_make_demo_and_make_test_run_what_the_readme_says(environment):
    """`make test` is what runs this; `make demo` is the run below, and is run whole by whoever clones."""
    assert "bin/python -m pytest" in shell("make -n test", environment).stdout
    assert shell("make -n demo", environment).stdout.splitlines()[-1] == COMMANDS[3]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo, small, once: what was planned before it, how it ended, and its environment."""
    environment = shell_environment(tmp_path_factory.mktemp("demo"))
    planned = shell(smaller(COMMANDS[2], TINY), environment).stdout
    return planned, last_line(shell(smaller(COMMANDS[3], TINY), environment)), environment


def test_demo_plan_and_merge_weight(demo):
    planned, first, environment = demo
    stages, cost = planned.split("\n\n")
    assert [line.split()[1] for line in stages.splitlines()] == ["run"] * 9
    assert cost.splitlines()[0].split() == ["cost", "on", "1", "GPU", "base", "extend", "anneal"]
    assert [stage["status"] for stage in first["stages"]] == ["ran"] * 9
    second = last_line(shell(smaller(COMMANDS[4], TINY), environment))
    assert [s["stage"] for s in second["stages"] if s["status"] == "ran"] == ["merge", "evaluate", "report"]
    assert shell(f"longrecipe verify {second['model']}", environment).stdout.startswith("whole: checkpoint")
    impactful = last_line(shell(smaller(COMMANDS[7], TINY), environment))
    assert [s["stage"] for s in impactful["stages"] if s["status"] == "hit"] == ["base", "tokenize", "replay"]
    assert [s["stage"] for s in impactful["stages"]][2] == "score"
    page = (Path(impactful["report"]) / "report.html").read_text()
    assert "Impactful tokens" in page


def test_positions(environment, tmp_path):
    done = shell(smaller(COMMANDS[8], ["--samples", "3", "--output", str(tmp_path)]), environment)
    assert "longrecipe" in done.stdout
    assert (tmp_path / "positions.png").stat().st_size > 10_000


def test_a_real_pretrained_model(environment):
    """The SmolLM2 recipe with few and short steps: the window is taken as 512, the target as 8,192."""
    with one_at_a_time(ROOT / "models" / "smollm2-135m"):
        shell(COMMANDS[5], environment)
    short = [
        *SHORT,
        *("--set", "context.window=512", "--set", "context.train_length=256", "--set", "context.target_length=8192"),
        *("--set", "corpus.sources.0.limit=40", "--set", "replay.sources.0.limit=200"),
        *("--set", "corpus.validation_share=0.5", "--set", "evaluation.minimum_length=600"),
        *("--set", "evaluation.documents=1", "--set", "'evaluation.stages=[merge]'"),
    ]
    result = last_line(shell(smaller(COMMANDS[6], short), environment))
    config = json.loads((Path(result["model"]) / "config.json").read_text())
    assert (config["rope_theta"], config["max_position_embeddings"]) == (400_000.0, 8192)
    # The report's evaluation is the merged model's: a few steps leave it what it was, a model of English and code.
    table = (Path(result["report"]) / "evaluation.txt").read_text()
    merged = next(line for line in table.splitlines() if line.startswith("stage 2, merged"))
    assert float(merged.split()[3]) < 4


@pytest.fixture
def local_stand_ins(demo, tmp_path):
    """The demo's base and local files for what the 8B recipe takes from the hub."""
    base = demo[1]["stages"][0]["uri"]
    rows = [{"instruction": f"Add 1 to {n}.", "output": f"{n + 1}"} for n in range(400)]
    (tmp_path / "replay.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replay = {"path": str(tmp_path / "replay.jsonl"), "format": "jsonl", "prompt_column": "instruction"}
    replay["response_column"] = "output"
    documents = {"path": "{stdlib}/**/*.py", "format": "text", "limit": 60}
    return [
        *("--set", f"model.path={base}"),
        *("--set", f"corpus.sources={shlex.quote(json.dumps([documents]))}"),
        *("--set", f"replay.sources={shlex.quote(json.dumps([replay]))}"),
        *("--set", "corpus.validation_share=0.3", "--set", "context.window=256"),
        *("--set", "context.train_length=307", "--set", "context.target_length=1024"),
    ]


def test_an_8b_recipe_on_two_ranks_with_local_stand_ins(environment, local_stand_ins):
    result = last_line(shell(smaller(COMMANDS[9], [*SHORT, *local_stand_ins]), environment))
    assert [s["status"] for s in result["stages"]] == ["ran"] * 8
    about = Path(result["stages"][2]["uri"]) / "about"
    assert yaml.safe_load((about / "recipe.yaml").read_text())["launch"]["processes"] == 2
    # NTK with factor 10 over the stand-in's head dimension of 32: 1e4 * (100 - 9) ** (32 / 30).
    config = json.loads((Path(result["model"]) / "config.json").read_text())
    assert config["rope_theta"] == pytest.approx(1e4 * 91 ** (32 / 30))
