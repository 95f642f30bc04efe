"""One tensor's weighted average, in pieces of bounded size.

Files are read with plain reads into buffers of our own: pages of a memory-mapped file count as this process's
memory, and would grow to the size of whole shards.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import torch

from longrecipe_core.errors import MergeError
from longrecipe_core.modeling.weights import StoredTensor

# Numbers per piece: 1 MiB in fp32, so that a piece stays in the processor's cache between its steps.
PIECE = 2**18
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
COUNTS = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")
ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
ITEM_BYTES |= {name: dtype.itemsize for name, dtype in FLOATS.items()}


class TensorReader:
    """Reads pieces of stored tensors into one reused buffer; keeps at most one file open."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, tensor: StoredTensor, offset: int, size: int) -> torch.Tensor:
        """`size` bytes from byte `offset` of the tensor, as uint8 [size]; valid until the next read."""
        if self._path != tensor.file:
            if self._file is not None:
                self._file.close()
            self._file, self._path = tensor.file.open("rb", buffering=0), tensor.file
        assert self._file is not None
        if len(self._buffer) < size:
            self._buffer = torch.empty(size, dtype=torch.uint8)
        piece = self._buffer[:size]
        view = piece.numpy().data
        self._file.seek(tensor.start + offset)
        done = 0
        while done < size:
            count = self._file.readinto(view[done:])  # type: ignore[attr-defined]  # raw files have it
            if not count:
                raise MergeError(f"{tensor.file}: ends inside tensor {tensor.name}")
            done += count
        return piece


def average_pieces(
    tensors: list[StoredTensor], weights: list[float], readers: list[TensorReader], dtype: str
) -> Iterator[torch.Tensor]:
    """Σ wᵢ·xᵢ piece by piece, as uint8 views of `dtype` values; each is valid until the next.

    All tensors have one shape. Terms are added in the order given, in fp32 (fp64 where the result is fp64),
    and rounded once at the end. A weight of zero leaves its tensor out. Raises MergeError for a value that is
    not finite, or not in `dtype`'s range.
    """
    target = FLOATS[dtype]
    arithmetic = torch.promote_types(torch.float32, target)
    largest = torch.finfo(target).max
    total, term = torch.empty(2, PIECE, dtype=arithmetic)
    rounded = torch.empty(PIECE, dtype=target)
    numbers = tensors[-1].size // ITEM_BYTES[tensors[-1].dtype]
    for begin in range(0, numbers, PIECE):
        count = min(PIECE, numbers - begin)
        sum_, part, out = total[:count], term[:count], rounded[:count]
        first = True
        for tensor, weight, reader in zip(tensors, weights, readers, strict=True):
            if weight == 0:
                continue
            width = ITEM_BYTES[tensor.dtype]
            values = reader.read(tensor, begin * width, count * width).view(FLOATS[tensor.dtype])
            # Multiply, then add: torch's add(alpha=) may fuse the two and round differently.
            if first:
                sum_.copy_(values).mul_(weight)
            else:
                sum_.add_(part.copy_(values).mul_(weight))
            first = False
        low, high = torch.aminmax(sum_)
        if not (low >= -largest and high <= largest):  # false for NaN too
            raise MergeError(
                f"tensor {tensors[-1].name}: the average is not finite in {dtype} (from {_files(tensors)})"
            )
        yield out.copy_(sum_).view(torch.uint8)


def equal_pieces(tensors: list[StoredTensor], readers: list[TensorReader]) -> Iterator[torch.Tensor]:
    """The bytes of a tensor that is not averaged (integers, booleans), as uint8; each valid until the next.

    Raises MergeError where the sources differ.
    """
    size = tensors[-1].size
    for begin in range(0, size, PIECE):
        pieces = [
            reader.read(tensor, begin, min(PIECE, size - begin))
            for tensor, reader in zip(tensors, readers, strict=True)
        ]
        if not all(torch.equal(piece, pieces[-1]) for piece in pieces):
            raise MergeError(
                f"tensor {tensors[-1].name} holds {tensors[-1].dtype} values, which can't be averaged, "
                f"and differs between {_files(tensors)}"
            )
        yield pieces[-1]


def _files(tensors: list[StoredTensor]) -> str:
    return ", ".join(str(tensor.file) for tensor in tensors)
