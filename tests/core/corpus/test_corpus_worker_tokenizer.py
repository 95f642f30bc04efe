"""A worker's encoder, which comes straight from tokenizer.json, against the one that transformers makes."""

import json
import shutil
import subprocess
import sys

import pytest

from longrecipe_core.corpus.tokenizer import Encoder, load_tokenizer

TEXTS = ["Plain text, 3.14!", "", "naïve – ünï 漢字 \n\n  <|end|> x", "a" * 5000]


def test_the_same_ids_without_transformers(tokenizer, tmp_path):
    whole = Encoder(load_tokenizer(tokenizer))
    straight = Encoder.like(whole.likeness(), tokenizer)
    assert (straight.size, straight.eos, straight.prefix.tolist()) == (whole.size, whole.eos, whole.prefix.tolist())
    assert [ids.tolist() for ids in straight.encode(TEXTS)] == [ids.tolist() for ids in whole.encode(TEXTS)]


def test_a_worker_imports_neither_transformers_nor_torch():
    code = "import sys, longrecipe_core.corpus.encoding; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("change", ["another vocabulary", "damaged", "missing"])
def test_a_file_that_is_not_the_tokenizer_is_left_to_transformers(tokenizer, tmp_path, change):
    whole = Encoder(load_tokenizer(tokenizer))
    other = shutil.copytree(tokenizer, tmp_path / "other")
    path = other / "tokenizer.json"
    if change == "missing":
        path.unlink()
    elif change == "damaged":
        path.write_text(path.read_text()[:100])
    else:
        tree = json.loads(path.read_text())
        tree["model"]["merges"].pop()
        path.write_text(json.dumps(tree))
    assert Encoder.like(whole.likeness(), other) is None
