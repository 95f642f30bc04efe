"""Waiting for what other processes do."""

import time
from collections.abc import Callable
from typing import Any

import pytest

# Seconds for what happens soon. They pass only where something is broken: a loaded machine may stand still for minutes.
PATIENCE = 600


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str] = "", *, seconds: float = PATIENCE, every: float = 0.1
) -> Any:
    """Poll a condition and return what it gave; fail with `what`, or what that returns, when the time is over."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s {what if isinstance(what, str) else what()}")
        time.sleep(every)
    return found
