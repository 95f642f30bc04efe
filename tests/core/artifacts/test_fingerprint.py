import enum
import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from longrecipe_core.artifacts import canonical_json, fingerprint
from longrecipe_core.errors import FingerprintError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def plain_text(value: object) -> str:
    """The oracle: canonical JSON written out by hand."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(map(escape, value)) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{plain_text(key)}:{plain_text(value[key])}" for key in sorted(value)) + "}"
    assert isinstance(value, (list, tuple))
    return "[" + ",".join(map(plain_text, value)) + "]"


def escape(letter: str) -> str:
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", "\b": "\\b"}
    if letter in short:
        return short[letter]
    code = ord(letter)
    if 32 <= code < 127:
        return letter
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


@given(VALUES)
def test_equals_the_oracle(value: object) -> None:
    assert canonical_json(value).replace("\\u007f", "\x7f") == plain_text(value).replace("\\u007f", "\x7f")
    assert fingerprint(value) == hashlib.sha256(canonical_json(value).encode()).hexdigest()


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_order_of_keys_does_not_count(value: dict[str, int]) -> None:
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


def test_known_value() -> None:
    value = {"b": [1, 1.0, True, None, "é"], "a": (-0.0, 1e-5, 10**20)}
    assert canonical_json(value) == '{"a":[-0.0,1e-05,100000000000000000000],"b":[1,1.0,true,null,"\\u00e9"]}'


def test_numbers_that_compare_equal_are_told_apart() -> None:
    assert len({fingerprint(value) for value in (1, 1.0, True, "1", [1])}) == 5
    assert fingerprint((1, 2)) == fingerprint([1, 2])


class Colour(enum.Enum):
    RED = "red"


class Inner(BaseModel):
    steps: object


class Outer(BaseModel):
    extend: Inner


def test_models_and_enums_are_their_values() -> None:
    assert canonical_json(Outer(extend=Inner(steps=[Colour.RED]))) == '{"extend":{"steps":["red"]}}'


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({1, 2}, "set"),
        (frozenset(), "frozenset"),
        (Path("x"), "PosixPath"),
        (b"x", "bytes"),
        (object(), "object"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (np.float64(1), "float64"),
        (np.int64(1), "int64"),
        (np.str_("x"), "str_"),
        (np.zeros(1), "ndarray"),
        (1j, "complex"),
        (lambda: 0, "function"),
    ],
)
def test_uncertain_values_are_refused_by_place(bad: object, name: str) -> None:
    with pytest.raises(FingerprintError, match=rf"^training\.extend\.steps\[1\]: {name} has no certain serialization"):
        canonical_json({"training": Outer(extend=Inner(steps=[0, bad]))})
    with pytest.raises(FingerprintError, match=r"^value: "):
        canonical_json(bad)


def test_odd_keys_and_circles_are_refused() -> None:
    with pytest.raises(FingerprintError, match=r"^a: the key 1 is a int"):
        canonical_json({"a": {1: 2}})
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(FingerprintError, match="contains itself"):
        canonical_json(circle)


def test_stable_across_processes_and_hash_seeds() -> None:
    value = {f"key {i}": [i, str(i), {"x": i / 7}] for i in range(50)}
    code = (
        "from longrecipe_core.artifacts import fingerprint\n"
        "print(fingerprint({k: [i, str(i), {'x': i / 7}] for i, k in "
        "sorted(((i, f'key {i}') for i in range(50)), key=hash)}))"
    )
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == fingerprint(value)


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, longrecipe_core.artifacts as a; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "prefect", "s3fs"} & set(done.stdout.split())
