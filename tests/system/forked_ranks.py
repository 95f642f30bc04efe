"""Ranks forked off a process that has imported torch and transformers once.

Each has a process of its own, with signals and an exit code like any other, and runs the same lines as one that
`python -m` starts; but the ten seconds of imports, which hundreds of ranks would pay in turn, are paid once. Launched
ranks (`launched_jobs`, `test_two_machines`) are started as a user's are.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["longrecipe_core.training.loop", "transformers.models.llama.modeling_llama", "torch.utils.tensorboard"]
)


def fork_rank(job: Path, log: Path, environment: Mapping[str, str], code: str | None) -> ForkServerProcess:
    """Start `python -m longrecipe_core.training JOB`, or `code` in its place; what it prints goes to `log`."""
    process = _context.Process(target=_run, args=(str(job), str(log), {**os.environ, **environment}, code))
    process.start()
    return process


def _run(job: str, log: str, environment: dict[str, str], code: str | None) -> None:
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.argv[1:] = [job]
    if code is None:
        runpy.run_module("longrecipe_core.training", run_name="__main__", alter_sys=True)
    else:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
