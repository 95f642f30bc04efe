"""Tiny training jobs that are really launched: their files, and the processes that belong to them."""

import psutil
import training_material
from training_material import make_material

from longrecipe_core.launching.processes import TOKEN_VARIABLE

__all__ = ["make_material", "processes_of", "ranks_of", "write_job"]


def write_job(material, directory, *, steps, learning_rate=3e-3, clip=1.0, processes=2, **launch):
    """The job's file; `launch` are its other keys there."""
    training = {"steps": steps, "learning_rate": learning_rate, "clip": clip}
    launch = {"checkpoint_every": 10, **launch}
    return training_material.write_job(material, directory, processes, training=training, launch=launch) / "job.json"


def processes_of(directory, what=""):
    """Living processes of a job in `directory`, of whatever parent, with `what` in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if str(directory) in line and what in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def ranks_of(directory):
    """The ranks' processes by rank; a single one, which is started without torchrun, is 0."""
    found = {}
    for process in processes_of(directory, "-m longrecipe_core.training"):
        try:
            if process.parent() and "longrecipe_core.launching.agent" in " ".join(process.parent().cmdline()):
                environment = process.environ()
                if TOKEN_VARIABLE in environment:
                    found[int(environment.get("RANK", 0))] = process
        except psutil.Error:
            continue
    return found
