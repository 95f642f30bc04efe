"""Measurements that need a process of their own: for its memory, its threads, its precision."""

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.train.models import ROOT


def ask(module: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `python -m module arguments…` and return what it answers. What it tells beside goes to stderr."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | (environment or {}), stdout=subprocess.PIPE, text=True, check=False
    )
    *told, last = done.stdout.splitlines() or [""]
    print(*told, sep="\n", end="", file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {done.returncode}; {last}")
    reply: dict[str, Any] = json.loads(last)
    return reply


def answer(reply: dict[str, Any]) -> None:
    """The last line of such a process."""
    print(json.dumps(reply), flush=True)
