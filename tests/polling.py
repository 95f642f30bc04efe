"""Waiting for what other processes do."""

import time
from collections.abc import Callable

import pytest


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str] = "", *, seconds: float = 120, every: float = 0.1
) -> None:
    """Poll a condition; fail with `what`, or what that returns, when it does not hold within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s {what if isinstance(what, str) else what()}")
        time.sleep(every)
