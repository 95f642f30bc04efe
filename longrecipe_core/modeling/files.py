"""Which file of a Hugging Face model directory is what. Rules by name, written once."""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

CONFIG_NAME = "config.json"
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"

TOKENIZER_PATTERNS = (
    "tokenizer*.json",
    "tokenizer*.model*",
    "*.tiktoken",
    "tekken.json",
    "sentencepiece*.model",
    "spiece.model",
    "spm.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates/*",
)
GENERATION_PATTERNS = ("generation_config.json",)
CODE_PATTERNS = ("*.py",)
# What is fetched and what decides a model's identity; no pickled weights, no copies in other formats.
MODEL_PATTERNS = (
    CONFIG_NAME,
    "*.safetensors",
    INDEX_NAME,
    *TOKENIZER_PATTERNS,
    *GENERATION_PATTERNS,
    *CODE_PATTERNS,
)
WEIGHT_PATTERNS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "*.bin.index.json",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.gguf",
    "*.h5",
    "*.msgpack",
)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a path relative to the model directory, with forward slashes, has one of the patterns.

    A pattern without a slash means files of the directory itself, none below it.
    """
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def files_matching(directory: Path, patterns: Iterable[str]) -> list[str]:
    """Names of the files with one of the patterns, relative to the directory, sorted."""
    wanted = tuple(patterns)
    names = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return sorted(name for name in names if matches(name, wanted))


def companion_patterns(has_code: bool) -> tuple[str, ...]:
    """Patterns of what belongs to a model beside config and weights; Python code only if it has its own."""
    return (*TOKENIZER_PATTERNS, *GENERATION_PATTERNS, *(CODE_PATTERNS if has_code else ()))
