import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config

FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_config() -> Callable[..., Any]:
    """A config of one of three families; head dimension 16, window 64."""

    def make(family: str = "llama", **changes: Any) -> Any:
        values: dict[str, Any] = {
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        }
        if family == "mistral":
            values["sliding_window"] = None
        return FAMILIES[family](**(values | changes))

    return make


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", model_max_length=64).save_pretrained(directory)
    (directory / "generation_config.json").write_text('{"max_new_tokens": 17}')
    return directory


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[str], Any]:
    """Runs Python that prints one JSON value, in a process that can't import this project."""

    def run(code: str) -> Any:
        blocked = "import sys\nfor name in ('longrecipe_core', 'tasks', 'flows'): sys.modules[name] = None\n"
        done = subprocess.run(
            [sys.executable, "-I", "-c", blocked + code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
