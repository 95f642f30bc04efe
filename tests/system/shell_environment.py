"""The environment of a shell in which a test runs the project's own commands."""

import os
import sys
from pathlib import Path

from prefect_home import make_home


def shell_environment(directory: Path) -> dict[str, str]:
    """`.venv/bin` of this interpreter comes first; store, cache and Prefect's home lie below `directory`."""
    return {
        # Of `make test`, too, nothing: a make started by a test is no part of it.
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_API", "MAKE", "MFLAGS"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(make_home(directory / "prefect")),
        "LONGRECIPE_STORE": str(directory / "store"),
        "LONGRECIPE_CACHE": str(directory / "cache"),
    }
