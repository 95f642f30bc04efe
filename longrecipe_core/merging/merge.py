"""The weighted average of checkpoints (paper, stage 2), from safetensors to safetensors."""

import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from longrecipe_core.errors import MergeError, ModelError
from longrecipe_core.merging.average import COUNTS, FLOATS, TensorReader, average_pieces, equal_pieces
from longrecipe_core.merging.output import appearing
from longrecipe_core.merging.shard import PlannedTensor, write_shard
from longrecipe_core.modeling.files import (
    CONFIG_NAME,
    INDEX_NAME,
    SINGLE_NAME,
    companion_patterns,
    files_matching,
)
from longrecipe_core.modeling.weights import StoredTensor, read_json, stored_tensors, weight_files

logger = logging.getLogger(__name__)

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

Tensors = dict[str, StoredTensor]


def merge_checkpoints(sources: Sequence[tuple[str, float]], output: str, *, dtype: str | None = None) -> None:
    """Writes Σ wᵢ·modelᵢ of (directory, weight) pairs to the new model directory `output`.

    Weights may be any finite numbers; they are used as given, not brought to sum 1. Every floating point
    tensor is computed in fp32 in the order of the sources and rounded once, to the last source's type or to
    `dtype` (`float32`, `bfloat16`, `float16`). Integer and boolean tensors must be equal everywhere and are
    copied. Config with RoPE and window, tokenizer and generation files come from the last source, and so does
    the layout of shards. Tied weights stay tied: an `lm_head.weight` that the last source does not have is
    left out where it only repeats the embedding.

    Only a few megabytes of tensors are in memory at any time. The output appears in one step; after an error
    nothing of it is there.

    Raises MergeError (a ValueError): no sources, weights not finite or all zero, a source that is not a whole
    safetensors checkpoint, tensors whose names, shapes or kinds differ (by name), a result that is not
    finite, an output that exists and is not an empty directory.
    """
    if not sources:
        raise MergeError("no sources to merge; give at least one (directory, weight)")
    directories = [Path(directory) for directory, _ in sources]
    weights = [float(weight) for _, weight in sources]
    for directory, weight in zip(directories, weights, strict=True):
        if not math.isfinite(weight):
            raise MergeError(f"weight {weight} of {directory}: must be a finite number")
    if not any(weights):
        raise MergeError("all weights are zero: the merged model would be, too")
    if dtype is not None and dtype not in DTYPES:
        raise MergeError(f"dtype {dtype}: allowed are {', '.join(DTYPES)}, or none for the last source's")
    try:
        config = read_json(directories[-1] / CONFIG_NAME)
        stored = [stored_tensors(weight_files(directory)) for directory in directories]
    except ModelError as error:
        raise MergeError(str(error)) from error
    if not all(HEAD in tensors for tensors in stored):
        stored = [_untied(tensors) for tensors in stored]
    for directory, tensors in zip(directories, stored, strict=True):
        _refuse_mismatch(tensors, stored[-1], directory, directories[-1])
    with appearing(Path(output)) as working, torch.no_grad():
        _write_weights(stored, weights, working, None if dtype is None else DTYPES[dtype])
        for name in files_matching(directories[-1], companion_patterns("auto_map" in config)):
            (working / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directories[-1] / name, working / name)
        if dtype is None:
            shutil.copyfile(directories[-1] / CONFIG_NAME, working / CONFIG_NAME)
        else:
            # Both generations' names for it; a reader takes the file's word for the type to load.
            _write_json(working / CONFIG_NAME, {**config, "dtype": dtype, "torch_dtype": dtype})


def _untied(tensors: Tensors) -> Tensors:
    """Without a head that only repeats the embedding, as it is stored where another source has none."""
    if HEAD not in tensors or EMBEDDING not in tensors:
        return tensors
    head, embedding = tensors[HEAD], tensors[EMBEDDING]
    if (head.dtype, head.shape) != (embedding.dtype, embedding.shape):
        return tensors
    with TensorReader() as one, TensorReader() as other:
        try:
            for _ in equal_pieces([head, embedding], [one, other]):
                pass
        except MergeError:
            return tensors  # a head of its own: told as a mismatch of names
    return {name: tensor for name, tensor in tensors.items() if name != HEAD}


def _refuse_mismatch(tensors: Tensors, last: Tensors, directory: Path, last_directory: Path) -> None:
    for name in sorted(tensors.keys() | last.keys()):
        if name not in tensors or name not in last:
            has, lacks = (directory, last_directory) if name in tensors else (last_directory, directory)
            raise MergeError(f"tensor {name} is in {has} but not in {lacks}")
        one, other = tensors[name], last[name]
        if one.shape != other.shape:
            raise MergeError(
                f"tensor {name} has shape {list(one.shape)} in {directory}, {list(other.shape)} in {last_directory}"
            )
        for tensor in (one, other):
            if tensor.dtype not in FLOATS and tensor.dtype not in COUNTS:
                raise MergeError(
                    f"tensor {name} of {tensor.file.parent} is {tensor.dtype}, which can't be averaged; "
                    f"allowed: {', '.join((*FLOATS, *COUNTS))}"
                )
        if one.dtype != other.dtype and not (one.dtype in FLOATS and other.dtype in FLOATS):
            raise MergeError(f"tensor {name} is {one.dtype} in {directory}, {other.dtype} in {last_directory}")


def _write_weights(stored: list[Tensors], weights: list[float], working: Path, dtype: str | None) -> None:
    last = stored[-1]
    shards: dict[str, list[PlannedTensor]] = {}
    for name, tensor in last.items():
        kind = dtype if dtype is not None and tensor.dtype in FLOATS else tensor.dtype
        shards.setdefault(tensor.file.name, []).append(PlannedTensor(name, kind, tensor.shape))
    kinds = {planned.name: planned.dtype for shard in shards.values() for planned in shard}
    with ExitStack() as stack:
        readers = [stack.enter_context(TensorReader()) for _ in stored]

        def pieces(name: str) -> Iterator[torch.Tensor]:
            tensors = [source[name] for source in stored]
            if kinds[name] in FLOATS:
                return average_pieces(tensors, weights, readers, kinds[name])
            return equal_pieces(tensors, readers)

        for number, (file, planned) in enumerate(sorted(shards.items()), start=1):
            write_shard(working / file, planned, pieces)
            logger.info("merged %s, %d of %d", file, number, len(shards))
    if set(shards) != {SINGLE_NAME}:
        total = sum(planned.size for shard in shards.values() for planned in shard)
        places = {planned.name: file for file, shard in shards.items() for planned in shard}
        _write_json(working / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": places})


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
