"""Small tokenizers, trained on the spot, and documents with all kinds of characters."""

from pathlib import Path

import fsspec
import pytest

from longrecipe_core.corpus import train_tokenizer

PROSE = [
    "The quick brown fox jumps over the lazy dog. It was 1897.\nNobody saw it!",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "Grüße aus Köln; 東京 and 🦊 too.",
] * 5


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours: adds nothing to a text."""
    directory = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(PROSE, 320, directory, model_max_length=256)
    return directory


@pytest.fixture(scope="session")
def bos_tokenizer(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """BOS in front, as Llama 3's; also EOS behind, and truncation and padding left over from training."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    special = [(token, loaded.convert_tokens_to_ids(token)) for token in ("<|begin|>", "<|end|>")]
    loaded.backend_tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A <|end|>", special_tokens=special)
    loaded.backend_tokenizer.enable_truncation(8)
    loaded.backend_tokenizer.enable_padding(length=8)
    directory = tmp_path_factory.mktemp("bos")
    loaded.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def foreign_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another vocabulary than ours."""
    directory = tmp_path_factory.mktemp("foreign")
    train_tokenizer([text.upper() for text in PROSE] + ["zebra zoo " * 9], 290, directory, model_max_length=64)
    return directory


@pytest.fixture
def memory_root() -> str:
    """An empty place on `memory://`."""
    fs = fsspec.filesystem("memory")
    if fs.exists("/corpus-tests"):
        fs.rm("/corpus-tests", recursive=True)
    return "memory://corpus-tests"


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path, memory_root: str) -> str:
    """A directory on each kind of filesystem."""
    return str(tmp_path) if request.param == "local" else memory_root
