"""config.json as both generations of readers take it, and the check that it is what was meant.

transformers 5 writes RoPE into `rope_parameters` only. Older readers (transformers 4, serving engines) look
for `rope_theta` and `rope_scaling` at the top level, and where they find neither take θ = 10000 without an
error.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling.files import CONFIG_NAME
from longrecipe_core.modeling.weights import read_json

COMPARED = ("rope_type", "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
WINDOWS = ("max_position_embeddings", "sliding_window")


def write_both_forms(directory: Path, *, dtype: str) -> None:
    """Adds to a saved config.json what older readers look for: `rope_theta`, `rope_scaling`, `torch_dtype`.

    `rope_scaling` is null for unscaled RoPE, else the parameters under both names of the type. `use_cache` is
    put on, since off is only how we train. The file is replaced in one step.
    """
    path = directory / CONFIG_NAME
    content = read_json(path)
    parameters = content.get("rope_parameters")
    if not isinstance(parameters, dict):
        raise ModelError(f"{path}: has no rope_parameters to write in the older form")
    content["rope_theta"] = parameters["rope_theta"]
    content["rope_scaling"] = _old_scaling(parameters)
    content["dtype"] = content["torch_dtype"] = dtype
    content["use_cache"] = True
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def check_saved_rope(directory: Path, expected: PreTrainedConfig, *, trust_remote_code: bool = False) -> None:
    """Re-reads config.json, in the older form and through AutoConfig, and compares both with `expected`.

    Compared are θ, the type with its parameters, and the window. Raises ModelError naming the first
    difference.
    """
    path = directory / CONFIG_NAME
    raw = read_json(path)
    try:
        loaded = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises whatever the config's class raises
        raise ModelError(f"{path}: can't be loaded again: {error}") from error
    wanted = dict(expected.rope_parameters)
    old = {"rope_type": "default", **(raw.get("rope_scaling") or {}), "rope_theta": raw.get("rope_theta")}
    for reader, found in (("transformers 4", old), ("transformers 5", dict(loaded.rope_parameters or {}))):
        for key in ("rope_theta", *dict.fromkeys([*COMPARED, *wanted])):
            _compare(path, reader, key, found.get(key), wanted.get(key))
    for key in WINDOWS:
        _compare(path, "transformers 5", key, getattr(loaded, key, None), getattr(expected, key, None))
    key = WINDOWS[0]
    _compare(path, "transformers 4", key, raw.get(key), getattr(expected, key))


def _old_scaling(parameters: dict[str, Any]) -> dict[str, Any] | None:
    kind = parameters.get("rope_type", "default")
    if kind == "default":
        return None
    rest = {key: value for key, value in parameters.items() if key not in ("rope_theta", "rope_type", "type")}
    # "type" is the name that releases before 4.43 and some engines read.
    return {"rope_type": kind, "type": kind, **rest}


def _compare(path: Path, reader: str, key: str, found: object, wanted: object) -> None:
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        same = math.isclose(found, wanted, rel_tol=1e-12)
    else:
        same = found == wanted
    if not same:
        raise ModelError(f"{path}: {reader} reads {key} = {found}, but {wanted} was meant")
