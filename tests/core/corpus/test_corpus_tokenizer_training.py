import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from longrecipe_core.corpus import train_tokenizer
from longrecipe_core.errors import CorpusError

TEXTS = ["The quick brown fox. It was 1897.\n", "def add(a, b):\n    return a + b\n", "Grüße 東京 🦊"] * 9


def test_any_text_comes_back_and_nothing_is_added(tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 300, tmp_path / "new" / "one", model_max_length=256)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new" / "one")
    assert len(tokenizer) == 300
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == 256
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|begin|>",
        "<|end|>",
        "<|pad|>",
    )
    for text in (*TEXTS, "unseen ж \t\r\n , x ."):
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text
        assert ids == tokenizer.encode(text, add_special_tokens=False)
        assert not set(ids) & set(tokenizer.all_special_ids)
    assert len(tokenizer("The quick brown fox.").input_ids) < 12
    config = json.loads((tmp_path / "new" / "one" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # the name that transformers 4 knows too


def test_other_processes_write_the_same_bytes(tmp_path: Path) -> None:
    source = f"""
import sys, pathlib
from longrecipe_core.corpus import train_tokenizer
texts = {TEXTS!r} + [f"w{{n * n % 97}} v{{n % 13}} ab{{n % 5}}" for n in range(3000)]
train_tokenizer(texts, 400, pathlib.Path(sys.argv[1]), model_max_length=64)
"""
    for number in range(3):
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "RAYON_NUM_THREADS": str(1 + number)}
        command = [sys.executable, "-c", source, str(tmp_path / str(number))]
        subprocess.run(command, check=True, env=environment)
    names = sorted(path.name for path in (tmp_path / "0").iterdir())
    for number in (1, 2):
        assert sorted(path.name for path in (tmp_path / str(number)).iterdir()) == names
        for name in names:
            assert (tmp_path / str(number) / name).read_bytes() == (tmp_path / "0" / name).read_bytes()


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"258 is too small .* at least 259"):
        train_tokenizer(TEXTS, 258, tmp_path, model_max_length=64)
