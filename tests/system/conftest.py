"""What system tests share."""

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """A shell's environment in which `.venv/bin` of this interpreter comes first and Prefect has a home of its own."""
    return {
        # Of `make test`, too, nothing: a make started by a test is no part of it.
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_API", "MAKE", "MFLAGS"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "LONGRECIPE_STORE": str(tmp_path / "store"),
        "LONGRECIPE_CACHE": str(tmp_path / "cache"),
    }
