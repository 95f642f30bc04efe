"""The table that `plan` prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from longrecipe_core.cost.fitting import CARD
from longrecipe_core.cost.memory import gpu_memory
from longrecipe_core.cost.paper import LLAMA3_RUNS
from longrecipe_core.cost.shapes import KNOWN, shape_of_base
from longrecipe_core.cost.table import cost_lines
from longrecipe_core.cost.trainings import cost, gpu_bytes, trainings
from longrecipe_core.recipe import Recipe
from longrecipe_core.training.schedule import total_steps

FILES = sorted((Path(__file__).resolve().parents[3] / "recipes").glob("*.yaml"))
RECIPES = [path for path in FILES if not path.stem.startswith("compare-")]  # those are comparisons, not recipes
BIG = [path for path in RECIPES if re.search("llama3|qwen2|mistral", path.name)]
LLAMA = next(path for path in RECIPES if path.name == "llama3-8b-80k.yaml")
TINY = next(path for path in RECIPES if path.name == "tiny-cpu.yaml")
ALL = {"base", "tokenize", "warmup", "extend", "anneal", "merge"}


def lines(path: Path, *overrides: str, stages=ALL, samples=None) -> list[str]:
    return list(cost_lines(Recipe.load(path, overrides), stages, samples))


def cells(printed: list[str], row: str) -> list[str]:
    """The columns of a row."""
    found = next(line for line in printed if line.startswith(row))
    return re.split(r"  +", found.removeprefix(row).strip())


@pytest.fixture(autouse=True)
def _no_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_has_a_table_or_one_clear_line(path):
    printed = lines(path)
    recipe = Recipe.load(path)
    if recipe.base is None and recipe.model.path not in KNOWN and not Path(recipe.model.path).is_dir():
        assert len(printed) == 1
        assert printed[0].startswith(f"cost: {recipe.model.path}: its config.json is not on this machine")
        return
    stages = cells(printed, "cost on 1 GPU" if recipe.launch.processes == 1 else "cost on 2 GPUs")
    assert stages == [stage for stage in ("base", "extend", "anneal") if stage != "base" or recipe.base]
    rows = ["tokens", "FLOPs", "memory per GPU", "host memory per GPU", "training checkpoint", "output"]
    for row in [*rows, "hours on A100/A800", "hours on H100", "hours on H200"]:
        assert len(cells(printed, row)) == len(stages)
    # No reader of the stages' lines takes one of these for a stage's.
    assert not any(line.split()[0] in ALL or line.split()[1] in ("hit", "run") for line in printed[: len(rows) + 4])


def test_the_paper_s_run_by_hand():
    printed = lines(LLAMA, stages={"extend"})
    assert cells(printed, "tokens") == ["239.6 M"]  # 104 steps of 96 sequences of 24,000
    assert cells(printed, "training checkpoint") == ["96 GB"]
    assert cells(printed, "output") == ["32 GB"]
    assert cells(printed, "memory per GPU") == ["33 GB"]  # as much as loading takes, and the context
    assert cells(printed, "hours on A100/A800") == ["26"]
    assert cells(printed, "hours on H100") == ["16"]


@pytest.mark.parametrize("path", BIG, ids=lambda path: path.stem)
@pytest.mark.parametrize("processes", [1, 2, 8])
def test_the_options_that_are_named_make_it_fit(path, processes):
    overrides = [f"launch={{processes: {processes}, activation_checkpointing: full}}"]
    finding = next(line for line in lines(path, *overrides) if "do not fit a card of 80 GB" in line)
    assert finding.startswith("extend, anneal: ")
    flags = re.findall(r"--set (\S+)", finding)
    assert flags
    shape = KNOWN[Recipe.load(path).model.path]
    for training in trainings(Recipe.load(path, overrides), shape):
        assert gpu_bytes(shape, training.setup) > CARD
    for training in trainings(Recipe.load(path, [*overrides, *flags]), shape):
        assert gpu_bytes(shape, training.setup) <= CARD
        assert f"{gpu_bytes(shape, training.setup) / 1e9:.0f} GB, with" in finding
    assert not any("do not fit" in line for line in lines(path, *overrides, *flags))
    assert "zero3" not in finding  # DeepSpeed is an extra, and something else does it


@pytest.mark.parametrize("path", BIG, ids=lambda path: path.stem)
def test_the_shipped_recipes_fit_a_card_as_they_are(path):
    assert not any("do not fit" in line for line in lines(path))


def test_more_gpus_are_named_where_the_given_do_not_suffice():
    huge = ["context.train_length=1000000", "context.target_length=1000000"]
    finding = next(line for line in lines(LLAMA, *huge, stages={"extend"}) if "do not fit" in line)
    assert re.search(r"launch\.processes=(2|4|8|16|32|64)\b", finding)
    assert "launch.parallel=ring" in finding
    flags = re.findall(r"--set (\S+)", finding)
    assert not any("do not fit" in line for line in lines(LLAMA, *huge, *flags, stages={"extend"}))
    endless = ["context.train_length=900000000", "context.target_length=900000000"]
    finding = next(line for line in lines(LLAMA, *endless, stages={"extend"}) if "do not fit" in line)
    assert "no launch options are known" in finding


def test_tokens_are_those_of_the_data_once_they_are_counted():
    guessed = lines(LLAMA)
    assert cells(guessed, "tokens")[1].endswith(" ?")
    assert "anneal: tokens are counted when the data are made; until then as many as in the paper" in guessed
    counted = lines(LLAMA, samples={"replay": 1000})
    assert cells(counted, "tokens") == ["239.6 M", f"{1000 // 96 * 96 * 24_000 / 1e6:.2f} M"]
    assert not any("counted when" in line for line in counted)


@pytest.mark.parametrize(("samples", "epochs", "batch"), [(1000, 1, 96), (1000, 3, 96), (5, 1, 96), (96, 1, 96)])
def test_steps_are_those_of_the_training_loop(samples, epochs, batch):
    recipe = Recipe.load(LLAMA, [f"anneal.epochs={epochs}", f"anneal.global_batch={batch}"])
    anneal = list(trainings(recipe, KNOWN[recipe.model.path], {"replay": samples}))[-1]
    assert anneal.sequences == total_steps(recipe.anneal, samples) * batch


def test_a_warm_up_is_trained_at_the_target_length():
    recipe = Recipe.load(
        TINY,
        [
            "selection.strategy=impactful",
            "score={source: warmup, precision: fp32, warmup: {learning_rate: 1e-3, steps: 3, global_batch: 8}}",
        ],
    )
    shape = shape_of_base(recipe.base)
    assert [(t.stage, t.setup.length) for t in trainings(recipe, shape)] == [
        ("base", 256),
        ("warmup", 1024),
        ("extend", 307),
        ("anneal", 307),
    ]
    warmup = list(trainings(recipe, shape))[1]
    assert warmup.tokens == 3 * 8 * 1024
    assert cost(warmup).hours["H100"] > 0


def test_deepspeed_needs_what_the_paper_s_run_needed():
    """56 GB on the GPU, of which tensors are half, and the context."""
    run = LLAMA3_RUNS[0]
    assert gpu_bytes(run.shape, run.setup) == pytest.approx(57e9, rel=0.03)
    assert gpu_memory(run.shape, run.setup).total < 30e9


def test_only_what_will_run_is_told():
    assert cells(lines(TINY, stages={"anneal", "merge"}), "cost on 1 GPU") == ["anneal"]
    assert lines(TINY, stages={"merge"}) == ["cost: nothing is trained"]


def test_no_torch_is_imported():
    """`plan` prints in a second, not in six."""
    code = "import sys, longrecipe_core.cost.table; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
