"""A safetensors file written tensor by tensor.

The library's `save_file` wants all of a file's tensors in memory at once. The format needs no more than
shapes and types to begin with: 8 bytes of header length, a JSON header, then the values.
"""

import json
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from longrecipe_core.errors import MergeError
from longrecipe_core.merging.average import ITEM_BYTES
from longrecipe_core.modeling.weights import LENGTH_BYTES

ALIGNMENT = 8
FLUSHED = 2**25
"""Bytes after which the disk is told to write what the page cache has of a file."""


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to be written; `dtype` in safetensors' spelling."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def write_shard(path: Path, tensors: Iterable[PlannedTensor], pieces: Callable[[str], Iterable[torch.Tensor]]) -> None:
    """Writes a safetensors file; `pieces(name)` gives a tensor's values in order, as uint8 tensors.

    Values are laid out as the library does: the widest types first, so that every tensor is aligned, then by
    name. Raises MergeError where the pieces don't fill a tensor.
    """
    ordered = sorted(tensors, key=lambda tensor: (-ITEM_BYTES[tensor.dtype], tensor.name))
    with path.open("wb") as file, ThreadPoolExecutor(1, thread_name_prefix="merge-writer") as writer:
        file.write(_header(ordered))
        flushed = 0
        flush: Future[object] = writer.submit(int)
        for tensor in ordered:
            written = 0
            for piece in pieces(tensor.name):
                written += file.write(piece.numpy().data)
                if file.tell() - flushed >= FLUSHED and flush.done():
                    # The disk writes while the rest is computed, and whoever wants the file to be safe waits little.
                    flush.result()
                    flushed, flush = file.tell(), writer.submit(os.fdatasync, file.fileno())
            if written != tensor.size:
                raise MergeError(f"tensor {tensor.name}: {written} bytes to write, {tensor.size} planned")
        flush.result()


def _header(ordered: Iterable[PlannedTensor]) -> bytes:
    # transformers refuses a file whose metadata doesn't name the framework.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for tensor in ordered:
        end = begin + tensor.size
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
