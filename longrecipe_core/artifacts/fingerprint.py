"""Fingerprints: one certain text per value, and its sha256.

What counts as the same value, decided once:

- `1`, `1.0` and `True` are three values: their texts differ. A recipe's field types coerce before it comes
here.
- `0.0` and `-0.0` are two values. A list and a tuple with equal items are the same value.
- The order of a dict's keys doesn't count; strings are compared code point by code point, without
normalization.
- An `Enum` member is its value, a pydantic model the dict of its fields (its class name is not in it).
"""

import hashlib
import json
import math
from enum import Enum
from typing import Any

from pydantic import BaseModel

from longrecipe_core.errors import FingerprintError


def canonical_json(value: object) -> str:
    """The one JSON text of a value: keys sorted, no blanks, ASCII, floats in their shortest round-trip form.

    Raises FingerprintError, naming the place inside the value, for whatever has no certain serialization:
    sets, paths, bytes, NaN and infinities, numpy scalars, any other object. There is no fallback to `str`.
    """
    try:
        return json.dumps(_plain(value, ""), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise FingerprintError("the value contains itself or is nested too deeply to be serialized") from None


def fingerprint(value: object) -> str:
    """sha256, 64 hex digits, of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def _plain(value: object, place: str) -> Any:
    # Exact types: numpy.float64 is a float and numpy.str_ a str by inheritance, and both print differently
    # from one numpy release to the next.
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise FingerprintError(f"{place or 'value'}: {value} has no certain serialization")
        return value
    if isinstance(value, Enum):
        return _plain(value.value, place)
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="python"), place)
    if kind in (list, tuple):
        return [_plain(item, f"{place}[{at}]") for at, item in enumerate(value)]  # type: ignore[arg-type, var-annotated]
    if isinstance(value, dict):
        plain = {}
        for key, item in value.items():
            if type(key) is not str:
                raise FingerprintError(f"{place or 'value'}: the key {key!r} is a {type(key).__name__}, not a str")
            plain[key] = _plain(item, f"{place}.{key}" if place else key)
        return plain
    raise FingerprintError(f"{place or 'value'}: {kind.__name__} has no certain serialization")
