"""The end of a stage: a checkpoint directory that is whole, has nothing stray, and loads anywhere."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling.checkpoint import load_config, tied_names
from longrecipe_core.modeling.files import (
    CONFIG_NAME,
    INDEX_NAME,
    SINGLE_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_PATTERNS,
    WEIGHT_PATTERNS,
    companion_patterns,
    files_matching,
)
from longrecipe_core.modeling.weights import indexed_files, read_json, stored_tensors, weight_map

# transformers writes 1e30 for "no limit known"; what is above this is not a length.
LONGEST_REAL_LENGTH = 10**12


@dataclass(frozen=True)
class CheckpointSummary:
    """What a complete checkpoint holds: tensors, numbers in them, bytes of them, weight files."""

    tensors: int
    parameters: int
    bytes: int
    files: int


def finish_checkpoint(
    directory: Path | str, base_directory: Path | str, *, trust_remote_code: bool = False
) -> CheckpointSummary:
    """Completes a saved checkpoint from its base: tokenizer and generation files in, stray weight files out.

    Copied are the files that `files.py` lists for tokenizer and generation, and Python code where the base's
    config names any; never weights or config. A tokenizer's `model_max_length`, where it is a real length
    below the new window, becomes the window; else callers would go on truncating at the old one.

    Removed are weight files, ours or another format's, that the index does not name (without an index: all
    but `model.safetensors`), and empty ones. An index that names missing or empty files is itself stray if
    `model.safetensors` is there.

    Everything that can fail is done before the first change; running it again changes nothing.
    Raises ModelError where the weights that stay are not exactly the model's, or the base has no tokenizer.
    """
    folder, base = Path(directory), Path(base_directory)
    kept = _kept_weights(folder)
    summary = _check(folder, kept, trust_remote_code)
    window = int(load_config(folder, trust_remote_code).max_position_embeddings)
    has_code = "auto_map" in read_json(base / CONFIG_NAME) if (base / CONFIG_NAME).is_file() else False
    names = files_matching(base, companion_patterns(has_code))
    if not files_matching(base, TOKENIZER_PATTERNS):
        raise ModelError(f"{base}: holds no tokenizer files")
    with tempfile.TemporaryDirectory(prefix=".companions-", dir=folder) as staging:
        for name in names:
            (Path(staging) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / name, Path(staging) / name)
        _raise_length(Path(staging) / TOKENIZER_CONFIG_NAME, window)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(staging) / name, folder / name)
    for name in files_matching(folder, WEIGHT_PATTERNS):
        if name not in kept:
            (folder / name).unlink()
    return summary


def check_complete(directory: Path | str, *, trust_remote_code: bool = False) -> CheckpointSummary:
    """Checks that a directory holds every weight of its config's model exactly once, and no other.

    All safetensors files in the directory count, named by an index or not; the index must agree with them.
    Tied weights are present under one name only. The model is built without memory, and only headers are
    read.

    Raises ModelError naming the tensors or files.
    """
    folder = Path(directory)
    kept = _kept_weights(folder)
    if stray := [name for name in files_matching(folder, WEIGHT_PATTERNS) if name not in kept]:
        # A second copy of a tensor is told by its name, as far as the file can be read.
        stored_tensors(folder / n for n in [*sorted(kept - {INDEX_NAME}), *stray] if n.endswith(".safetensors"))
        raise ModelError(f"{folder}: stray weight files: {', '.join(stray)}")
    return _check(folder, kept, trust_remote_code)


def _kept_weights(folder: Path) -> set[str]:
    """Names of the weight files that make up the checkpoint, the index included."""
    single = folder / SINGLE_NAME
    if (folder / INDEX_NAME).is_file():
        shards = indexed_files(folder)
        bad = [name for name in shards if not (folder / name).is_file() or not (folder / name).stat().st_size]
        if not bad:
            return {INDEX_NAME, *shards}
        if not single.is_file():
            raise ModelError(f"{folder}: {INDEX_NAME} names {bad[0]}, which is missing or empty")
    if not single.is_file() or not single.stat().st_size:
        raise ModelError(f"{folder}: {SINGLE_NAME} is missing or empty, and there is no {INDEX_NAME}")
    return {SINGLE_NAME}


def _check(folder: Path, kept: set[str], trust_remote_code: bool) -> CheckpointSummary:
    files = [folder / name for name in sorted(kept - {INDEX_NAME})]
    stored = stored_tensors(files)
    if INDEX_NAME in kept:
        places = {name: tensor.file.name for name, tensor in stored.items()}
        index = weight_map(folder)
        if wrong := sorted(n for n in {*index, *places} if index.get(n) != places.get(n)):
            name = wrong[0]
            raise ModelError(
                f"{folder}: {INDEX_NAME} has tensor {name} in {index.get(name)}, it is in {places.get(name)}"
            )
    expected = _expected_shapes(folder, trust_remote_code)
    problems = [
        *(f"{name} is missing" for name in sorted(expected.keys() - stored.keys())),
        *(f"{name} does not belong to the model" for name in sorted(stored.keys() - expected.keys())),
        *(
            f"{name} has shape {list(stored[name].shape)}, the model wants {list(shape)}"
            for name, shape in sorted(expected.items())
            if name in stored and stored[name].shape != shape
        ),
    ]
    if problems:
        more = f", and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ModelError(f"{folder}: {'; '.join(problems[:4])}{more}")
    return CheckpointSummary(
        tensors=len(stored),
        parameters=sum(torch.Size(tensor.shape).numel() for tensor in stored.values()),
        bytes=sum(tensor.size for tensor in stored.values()),
        files=len(files),
    )


def _expected_shapes(folder: Path, trust_remote_code: bool) -> dict[str, tuple[int, ...]]:
    config = load_config(folder, trust_remote_code)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # a model class raises what it likes for a config that it can't take
        raise ModelError(f"{folder}: no model can be built from its config: {error}") from error
    aliases = tied_names(model)
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in aliases}
    # Names on disk differ from the module's for models whose layers are fused on loading.
    on_disk = revert_weight_conversion(model, own)
    return {name: tuple(tensor.shape) for name, tensor in on_disk.items()}


def _raise_length(path: Path, window: int) -> None:
    if not path.is_file():
        return
    content = read_json(path)
    length = content.get("model_max_length")
    if isinstance(length, int | float) and length < min(window, LONGEST_REAL_LENGTH):
        content["model_max_length"] = window
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
