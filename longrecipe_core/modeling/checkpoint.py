"""Load and save Hugging Face checkpoints, with every weight accounted for."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling.files import CONFIG_NAME
from longrecipe_core.modeling.saved_config import check_saved_rope, write_both_forms
from longrecipe_core.modeling.weights import weight_files

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Shards that a reader with little memory can still take one by one.
SHARD_SIZE = "5GB"


def load_config(directory: Path | str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The directory's config. Raises ModelError, one line, where it can't be read."""
    try:
        return AutoConfig.from_pretrained(str(directory), trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises whatever the config's class raises
        raise ModelError(f"{directory}: no config to be read: {_first_line(error)}") from error


def load_model(
    directory: Path | str,
    *,
    config: PreTrainedConfig | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    device: torch.device | str | None = None,
) -> PreTrainedModel:
    """The causal language model in a directory, in eval mode, without a key-value cache (it is for training).

    `config` (from `rope_config`) is used in place of the directory's own, so RoPE is right from the start.
    Weights come from safetensors only.

    Raises ModelError where a weight is missing, left over or of another shape, naming it: transformers would
    fill it at random or drop it with a warning.
    """
    folder = Path(directory)
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype}: allowed are {', '.join(DTYPES)}")
    weight_files(folder)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder),
            config=config if config is not None else load_config(folder, trust_remote_code),
            dtype=DTYPES[dtype],
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder}: can't be loaded: {_first_line(error)}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if names := sorted(map(str, info.get(problem, ()))):
            raise ModelError(f"{folder}: {problem.replace('_', ' ')}: {_some(names)}")
    model.config.use_cache = False
    return model if device is None else model.to(device)


def save_model(
    model: PreTrainedModel,
    directory: Path | str,
    *,
    state_dict: dict[str, torch.Tensor] | None = None,
    dtype: str | None = None,
) -> None:
    """Writes config, generation config and weights (safetensors, shards of at most 5 GB) to a directory.

    `state_dict` (all of the model's, gathered) stands in for the model's own weights; `dtype` converts
    floating point weights, else they stay as they are. Tied weights are written once. The config carries RoPE
    in both generations' forms and is re-read and compared.

    Raises ModelError for an incomplete state dict, tied weights that differ, or a config that reads back
    otherwise.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"dtype {dtype}: allowed are {', '.join(DTYPES)}")
    folder = Path(directory)
    weights = _own_weights(model, model.state_dict() if state_dict is None else state_dict)
    if dtype is not None:
        weights = {n: w.to(DTYPES[dtype]) if w.is_floating_point() else w for n, w in weights.items()}
    # save_pretrained writes the module's dtype; what is on disk is the weights'.
    written = next(str(w.dtype).removeprefix("torch.") for w in weights.values() if w.is_floating_point())
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, state_dict=weights, max_shard_size=SHARD_SIZE)
    write_both_forms(folder, dtype=written)
    for file in weight_files(folder):
        # safetensors writes for the owner only; a checkpoint is as readable as its config.
        shutil.copymode(folder / CONFIG_NAME, file)
    # is_remote_code: the class came with the model, so its code is trusted already.
    check_saved_rope(folder, model.config, trust_remote_code=model.is_remote_code())


def tied_names(model: PreTrainedModel) -> dict[str, str]:
    """Names of weights that are another one's alias → that other one."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


def _own_weights(model: PreTrainedModel, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The given weights without aliases, complete."""
    expected: dict[str, Any] = model.state_dict()
    aliases = tied_names(model)
    for alias, name in aliases.items():
        if alias in given and name in given and not torch.equal(given[alias], given[name]):
            raise ModelError(f"{alias} and {name} are tied in the model, but differ in the weights to be saved")
    own = {name: weight for name, weight in given.items() if name not in aliases}
    if missing := sorted(set(expected) - set(aliases) - set(own)):
        raise ModelError(f"weights to be saved lack {_some(missing)}")
    if extra := sorted(set(own) - set(expected)):
        raise ModelError(f"weights to be saved hold {_some(extra)}, which the model has not")
    return own


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
