"""Homes for Prefect whose SQLite database has its tables: to make them takes 10 s, which many tests would pay."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def make_home(directory: Path) -> Path:
    """Make `directory` a PREFECT_HOME with an empty, migrated database, unless it has one; returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "prefect.db").exists():
        shutil.copytree(_template(), directory, dirs_exist_ok=True)
    return directory


@functools.cache
def _template() -> Path:
    """A home that Prefect itself migrated, gone with this process."""
    home = Path(tempfile.mkdtemp(prefix="longrecipe-prefect-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(command, env={**settings, "PREFECT_HOME": str(home)}, check=True, capture_output=True)
    return home
