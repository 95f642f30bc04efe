"""One tensor's weighted average, in pieces of bounded size.

Files are read with plain reads into buffers of our own: pages of a memory-mapped file count as this process's
memory, and would grow to the size of whole shards.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import torch

from longrecipe_core.errors import MergeError
from longrecipe_core.modeling.weights import StoredTensor

# Numbers per piece: 1 MiB in fp32, so that a piece stays in the processor's cache between its steps.
PIECE = 2**18
# Bytes that are read at a time: enough for a disk to be at its best, little enough to have two for each source.
BLOCK = 2**23
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
    """Reads pieces of stored tensors, in rising order, out of blocks; the next block is read while one is used.

    Two buffers of a block each, used again and again; at most one file is open.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._buffers = [torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.uint8)]
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="merge-reader")
        self._tensor: StoredTensor | None = None
        self._begin, self._block = 0, self._buffers[0]  # the block in use, and where in the tensor it begins
        self._coming: Future[torch.Tensor] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.shutdown()
        if self._file is not None:
            self._file.close()

    def read(self, tensor: StoredTensor, offset: int, size: int) -> torch.Tensor:
        """`size` bytes from byte `offset` of the tensor, as uint8 [size]; valid until the next read."""
        if tensor != self._tensor or not self._begin <= offset <= offset + size <= self._begin + len(self._block):
            self._next_block(tensor, offset, size)
        return self._block[offset - self._begin : offset - self._begin + size]

    def _next_block(self, tensor: StoredTensor, offset: int, size: int) -> None:
        """Make the block that begins at `offset` the one in use: whole pieces of `size`, so that none is cut."""
        length = max(1, BLOCK // size) * size if size else 0
        end = self._begin + len(self._block)
        if tensor == self._tensor and self._coming is not None and offset == end:
            self._block = self._coming.result()
        else:
            if self._coming is not None:
                self._coming.result()  # it may be reading into the buffer that is needed now
            self._open(tensor.file)
            self._block = self._load(tensor, offset, min(length, tensor.size - offset))
        self._tensor, self._begin, self._coming = tensor, offset, None
        end = offset + len(self._block)
        if end < tensor.size:
            self._coming = self._ahead.submit(self._load, tensor, end, min(length, tensor.size - end))

    def _open(self, path: Path) -> None:
        if self._path != path:
            if self._file is not None:
                self._file.close()
            self._file, self._path = path.open("rb", buffering=0), path

    def _load(self, tensor: StoredTensor, offset: int, size: int) -> torch.Tensor:
        """Into the buffer that is not in use."""
        self._buffers.reverse()
        if len(self._buffers[0]) < size:
            self._buffers[0] = torch.empty(size, dtype=torch.uint8)
        block = self._buffers[0][:size]
        view = block.numpy().data
        assert self._file is not None
        self._file.seek(tensor.start + offset)
        done = 0
        while done < size:
            count = self._file.readinto(view[done:])  # type: ignore[attr-defined]  # raw files have it
            if not count:
                raise MergeError(f"{tensor.file}: ends inside tensor {tensor.name}")
            done += count
        return block


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
