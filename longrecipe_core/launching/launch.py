"""Start a training job under `accelerate launch`, an evaluation and a scoring in processes of their own."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from socket import socket

import yaml

from longrecipe_core.launching.supervised import run_supervised

Log = Callable[[str], None]

# A child's lines go to a log, where progress bars are noise.
QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def launch_training(job: Path, *, processes: int, cuda: bool, log: Log, stop: threading.Event | None = None) -> None:
    """Run `python -m longrecipe_core.training JOB` on `processes` ranks of this machine and wait for it.

    Args:
        job: The job's JSON file; the accelerate configuration is written beside it.
        processes: Ranks, one per GPU with `cuda`.
        cuda: Whether the ranks use GPUs; gloo on CPU otherwise.
        log: Called with each line that the job prints.
        stop: When it is set, the job is ended.

    Raises:
        LaunchError: The job ended with an error.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)  # of OpenMP; the job sets torch's own by the recipe
    config = job.with_name("accelerate.yaml")
    config.write_text(yaml.safe_dump(accelerate_config(processes, cuda, free_port())))
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)),
        *("--num_cpu_threads_per_process", str(threads)),
        *("--module", "longrecipe_core.training", str(job)),
    ]
    # cuBLAS is deterministic only with a workspace of fixed size.
    environment = {**QUIET, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if not cuda:
        environment["ACCELERATE_USE_CPU"] = "true"
    run_supervised(f"training job {job}", command, log, environment, stop)


def launch_evaluation(job: Path, *, log: Log) -> None:
    """Run `python -m longrecipe_core.evaluation JOB` and wait for it; raises LaunchError when it ends with an error."""
    command = [sys.executable, "-m", "longrecipe_core.evaluation", str(job)]
    run_supervised(f"evaluation job {job}", command, log, QUIET)


def launch_scoring(job: Path, *, log: Log) -> None:
    """Run `python -m longrecipe_core.scoring JOB` and wait for it; raises LaunchError when it ends with an error."""
    command = [sys.executable, "-m", "longrecipe_core.scoring", str(job)]
    run_supervised(f"scoring job {job}", command, log, QUIET)


def accelerate_config(processes: int, cuda: bool, port: int) -> dict[str, object]:
    """What `accelerate launch --config_file` reads, for one machine (traps, 11)."""
    config: dict[str, object] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "NO" if processes == 1 else "MULTI_GPU",
        "num_machines": 1,
        "num_processes": processes,
        "machine_rank": 0,
        "mixed_precision": "no",  # the job sets its own
        "use_cpu": not cuda and processes == 1,
    }
    if processes > 1:
        # MULTI_CPU starts one process whatever is asked for; MULTI_GPU with ACCELERATE_USE_CPU starts gloo ranks.
        config |= {"main_process_ip": "127.0.0.1", "main_process_port": port, "rdzv_backend": "static"}
    return config


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
