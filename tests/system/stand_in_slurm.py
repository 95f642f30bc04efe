"""What a batch script asks of Slurm, on loopback: `srun` starts each node's task as a process here.

After Slurm's manual pages: a step counts its nodes from 0, `srun` hands SIGTERM on to its tasks, and when these have
ended, whatever they left behind is killed.
"""

import os
import stat
import sys
from pathlib import Path

SCONTROL = """#!/bin/sh
test "$1 $2" = "show hostnames" && echo "$3" | tr , '\\n'
"""
SRUN = """#!{python}
import os, signal, subprocess, sys, uuid
import psutil

given, command = {{}}, sys.argv[1:]
while command[0].startswith("--"):
    name, value = command.pop(0)[2:].split("=")
    given[name] = value
assert set(given) == {{"nodes", "ntasks", "relative"}}, given
nodes, first = int(given["nodes"]), int(given["relative"])
assert given["ntasks"] == given["nodes"]
assert first + nodes <= len(os.environ["SLURM_JOB_NODELIST"].split(","))
step = uuid.uuid4().hex
tasks = []
signal.signal(signal.SIGTERM, lambda number, frame: [task.terminate() for task in tasks])
for node in range(nodes):
    environment = {{**os.environ, "SLURM_NODEID": str(node), "STAND_IN_STEP": step}}
    tasks.append(subprocess.Popen(command, env=environment))
code = max(abs(task.wait()) for task in tasks)
for process in psutil.process_iter():
    try:
        if process.pid != os.getpid() and process.environ().get("STAND_IN_STEP") == step:
            process.kill()
    except psutil.Error:
        pass
sys.exit(code)
"""


def install(directory: Path, nodes: int) -> dict[str, str]:
    """Write the commands into `directory`; gives the variables that a batch script of so many nodes finds."""
    directory.mkdir()
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        path = directory / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": ",".join(["127.0.0.1"] * nodes),
        "SLURM_NODEID": "0",
    }
