"""A tokenizer as this package uses one: plain ids out, and what it puts in front of a text known apart."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from longrecipe_core.corpus.arrow_shards import Int32Array
from longrecipe_core.corpus.files import expand_home, one_line
from longrecipe_core.corpus.hub import hub_token
from longrecipe_core.errors import CorpusError


def tokenizer_place(name: str) -> str:
    """The directory, `~` expanded, or hub id that a recipe names a tokenizer by.

    Raises:
        CorpusError: it reads like a path, and there is no such directory.
    """
    place = expand_home(name)
    if not os.path.isdir(place) and (place.startswith(("/", ".", "~")) or place.count("/") > 1):
        raise CorpusError(
            f"tokenizer {name}: no such directory; a directory with tokenizer.json, or a hub id, would do"
        )
    return place


def load_tokenizer(directory: str | Path, trust_remote_code: bool = False) -> Any:
    """The transformers tokenizer of a directory (or hub id), a `PreTrainedTokenizerBase`.

    Raises:
        CorpusError: there is none, or its files can't be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=trust_remote_code, token=hub_token() or False
        )
    except Exception as error:  # the tokenizers library raises plain Exception for damaged files
        raise CorpusError(f"tokenizer {directory}: can't be loaded: {one_line(error)}") from error


@dataclass(frozen=True)
class Likeness:
    """What makes a second encoder the same as a first: digest of its backend (None: it has none), size, prefix, EOS."""

    backend: str | None
    size: int
    prefix: tuple[int, ...]
    eos: int | None


class Encoder:
    """Texts to int32 ids without special tokens of the tokenizer's own.

    A special token that is spelled out in a text becomes that token, as everywhere in transformers.

    Attributes:
        prefix: int32 ids that the tokenizer puts in front of a text (Llama 3: BOS; Qwen2, SmolLM2: none).
        eos: id of the end of a text, or None.
        size: ids are below this.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend: Any = _whole(tokenizer.backend_tokenizer) if tokenizer.is_fast else None
        self.size = len(tokenizer)
        self.eos: int | None = tokenizer.eos_token_id
        self.prefix = self._find_prefix()

    def likeness(self) -> Likeness:
        """For `like`, in another process."""
        backend = None if self._backend is None else _digest(self._backend)
        return Likeness(backend, self.size, tuple(self.prefix.tolist()), self.eos)

    @classmethod
    def like(cls, likeness: Likeness, directory: Path) -> Self | None:
        """The same encoder straight from `tokenizer.json`, or None where that is not what transformers makes of it.

        Spares a worker the import of transformers and torch: seconds, and a quarter of a gigabyte.
        """
        path = directory / "tokenizer.json"
        if likeness.backend is None or not path.is_file():
            return None
        from tokenizers import Tokenizer

        try:
            backend = _whole(Tokenizer.from_file(str(path)))
        except Exception:  # noqa: BLE001 - it raises plain Exception; transformers may still read the file
            return None
        if _digest(backend) != likeness.backend:
            return None
        encoder = cls.__new__(cls)
        encoder._tokenizer, encoder._backend = None, backend
        encoder.size, encoder.eos = likeness.size, likeness.eos
        encoder.prefix = np.array(likeness.prefix, dtype=np.int32)
        return encoder

    def encode(self, texts: Sequence[str]) -> list[Int32Array]:
        """Ids of each text, int32 `[tokens]`, nothing cut and nothing added.

        Raises:
            CorpusError: an id is not one of the tokenizer's.
        """
        if self._backend is not None:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
            rows = [self._array(encoding.ids) for encoding in encodings]
        else:
            rows = [self._array(self._tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        for row in rows:
            if len(row) and not (row.min() >= 0 and row.max() < self.size):
                raise CorpusError(f"the tokenizer gave id {row.max()}, though it has {self.size} entries")
        return rows

    def _array(self, ids: list[int]) -> Int32Array:
        try:
            # pyarrow converts a list of numbers several times faster than numpy does.
            array: Int32Array = pa.array(ids, type=pa.int32()).to_numpy()
        except (pa.ArrowInvalid, OverflowError) as error:
            raise CorpusError(f"the tokenizer gave an id that is no 32-bit number: {one_line(error)}") from error
        return array

    def _find_prefix(self) -> Int32Array:
        """What stands before a text's own ids with special tokens on; what stands behind is dropped."""
        for probe in ("a", "the", "1"):
            plain = list(self._tokenizer.encode(probe, add_special_tokens=False))
            whole = list(self._tokenizer.encode(probe, add_special_tokens=True))
            for start in range(len(whole) - len(plain) + 1):
                if plain and whole[start : start + len(plain)] == plain:
                    return np.array(whole[:start], dtype=np.int32)
        raise CorpusError("the tokenizer changes a text's own ids when it adds special tokens; what it adds is unknown")


def _whole(backend: Any) -> Any:
    # A tokenizer.json can carry truncation and padding from its training; documents are stored whole.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _digest(backend: Any) -> str:
    return hashlib.sha256(backend.to_str().encode("utf-8")).hexdigest()
