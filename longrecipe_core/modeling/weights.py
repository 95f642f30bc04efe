"""Where every tensor of a safetensors checkpoint lies on disk, read from the headers alone."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling.files import INDEX_NAME, SINGLE_NAME

LENGTH_BYTES = 8  # a safetensors file starts with its header's length, little-endian


@dataclass(frozen=True)
class StoredTensor:
    """One tensor's place: `size` bytes from byte `start` of `file`; `dtype` as in safetensors (`BF16`)."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ModelError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; a model directory needs it") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds a JSON {type(value).__name__}, not an object")
    return value


def weight_files(directory: Path) -> list[Path]:
    """The directory's safetensors files, in the index's order of names, or the single one.

    Raises ModelError where there are none, where the index names a file that is missing or empty, and where
    a single file lies beside an index: readers differ on which of the two they take.
    """
    single, index = directory / SINGLE_NAME, directory / INDEX_NAME
    if index.is_file() and single.is_file() and SINGLE_NAME not in indexed_files(directory):
        raise ModelError(f"{directory}: has both {SINGLE_NAME} and {INDEX_NAME}; remove the one that is stale")
    names = indexed_files(directory) if index.is_file() else [SINGLE_NAME]
    missing = [name for name in names if not (directory / name).is_file()]
    if missing and not index.is_file():
        others = sorted(path.name for path in directory.glob("*.bin")) if directory.is_dir() else []
        hint = f"; {others[0]} is a pickle: convert the model to safetensors first" if others else ""
        raise ModelError(f"{directory}: no {SINGLE_NAME} and no {INDEX_NAME}{hint}")
    if missing:
        raise ModelError(f"{directory}: {INDEX_NAME} names {missing[0]}, which is not there")
    empty = [name for name in names if not (directory / name).stat().st_size]
    if empty:
        raise ModelError(f"{directory / empty[0]}: an empty weight file")
    return [directory / name for name in names]


def indexed_files(directory: Path) -> list[str]:
    """Names of the files in the directory's safetensors index, sorted. Raises ModelError."""
    return sorted(set(weight_map(directory).values()))


def weight_map(directory: Path) -> dict[str, str]:
    """The index's tensor name → file name. Raises ModelError, also for a file outside the directory."""
    path = directory / INDEX_NAME
    entries = read_json(path).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise ModelError(f"{path}: has no weight_map")
    for name, file in entries.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise ModelError(f"{path}: {name} is said to be in {file!r}, which is no plain file name")
    return dict(entries)


def stored_tensors(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """Every tensor of these files by name, in file order. Reads headers only.

    Raises ModelError for a damaged file and for a tensor that is in two files, by name.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        for tensor in _read_header(file):
            if tensor.name in found:
                raise ModelError(
                    f"tensor {tensor.name} is in both {found[tensor.name].file.name} and {file.name} of {file.parent}"
                )
            found[tensor.name] = tensor
    return found


def _read_header(file: Path) -> list[StoredTensor]:
    try:
        # The library checks the header against the file (sizes, gaps, truncation); it doesn't tell the
        # offsets.
        with safe_open(file, framework="pt"), file.open("rb") as raw:
            length = int.from_bytes(raw.read(LENGTH_BYTES), "little")
            header = json.loads(raw.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{file}: not a whole safetensors file: {error}") from error
    header.pop("__metadata__", None)
    data = LENGTH_BYTES + length
    return [
        StoredTensor(name, file, entry["dtype"], tuple(entry["shape"]), data + begin, end - begin)
        for name, entry in header.items()
        for begin, end in (entry["data_offsets"],)
    ]
