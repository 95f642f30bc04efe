"""A bad recipe at the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


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
        (
            ["recipes/qwen2-7b-80k.yaml", "--set", "launch={processes: 8, parallel: ulysses}"],
            "launch.parallel ulysses: 8 ranks can't split the 28 query heads of Qwen/Qwen2-7B",
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_bad_recipe_ends_with_2_before_anything_heavy_is_imported(longrecipe, tmp_path, command, arguments, fragment):
    done = longrecipe(command, *arguments, "--store", str(tmp_path / "store"))
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
