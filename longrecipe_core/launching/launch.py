"""Start a training job under `accelerate launch`, an evaluation and a scoring in processes of their own."""

import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import yaml

from longrecipe_core.errors import LaunchError
from longrecipe_core.launching.configuration import accelerate_config
from longrecipe_core.launching.machines import MACHINE_RANK, Leader, Machine, launch_directory
from longrecipe_core.launching.outcome import RANK_PREFIX, Tail, last_lines, training_failure
from longrecipe_core.launching.supervised import run_supervised
from longrecipe_core.recipe import LaunchSection

Log = Callable[[str], None]

# A child's lines go to a log, where progress bars are noise.
QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def launch_training(job: Path, *, cuda: bool, log: Log, stop: threading.Event | None = None) -> None:
    """Run `python -m longrecipe_core.training JOB` on the ranks that the job asks for and wait for it.

    With `launch.machines` above 1 this is the main machine, and the others run `python -m longrecipe_core.launching`.

    Args:
        job: The job's JSON file; what the launcher needs and writes goes beside it, into `JOB.launch`.
        cuda: Whether the ranks use GPUs, one each; gloo on CPU otherwise.
        log: Called with each line that the job prints.
        stop: When it is set, the job is ended.

    Raises:
        JobPreemptedError: The job was told to end by SIGTERM from outside.
        JobKilledError: The supervisor, the launcher or a rank was killed by a signal.
        LaunchError: The job ended with an error of its own, or the machines are not told as they must be.
    """
    launch = launch_section(job)
    machine = Machine.here(launch.machines)
    if machine.rank:
        raise LaunchError(
            f"{MACHINE_RANK} {machine.rank}: the flow runs on machine 0; on this one run "
            f"`python -m longrecipe_core.launching {job}`"
        )
    if launch.machines == 1:
        run_machine(job, launch, machine, cuda=cuda, log=log, stop=stop)
        return
    with Leader(launch_directory(job), machine, launch.preemption_grace, stop) as leader:
        run_machine(job, launch, machine, cuda=cuda, log=log, stop=leader.stop)


def run_machine(
    job: Path,
    launch: LaunchSection,
    machine: Machine,
    *,
    cuda: bool,
    log: Log,
    stop: threading.Event | None,
) -> None:
    """One machine's part of a launch: its launcher and its ranks; see `launch_training`."""
    world = launch.processes
    here = world // machine.machines
    ranks = range(machine.rank * here, (machine.rank + 1) * here)
    directory = launch_directory(job) / f"machine-{machine.rank}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config = accelerate_config(
        world, machine.machines, cuda, machine_rank=machine.rank, host=machine.host, port=machine.port
    )
    (directory / "accelerate.yaml").write_text(yaml.safe_dump(config))
    outcome = directory / "outcome.json"
    threads = max(1, (os.cpu_count() or 1) // here)  # of OpenMP; the job sets torch's own by the recipe
    command = [
        *(sys.executable, "-m", "longrecipe_core.launching.agent", str(outcome), str(launch.preemption_grace)),
        *("--config_file", str(directory / "accelerate.yaml"), "--num_cpu_threads_per_process", str(threads)),
        *("--tee", "3", "--log_dir", str(directory / "ranks")),
        *("--module", "longrecipe_core.training", str(job)),
    ]
    environment = {
        **QUIET,
        "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": RANK_PREFIX,
    }
    if not cuda:
        environment["ACCELERATE_USE_CPU"] = "true"

    def failure(what: str, code: int, tail: Tail) -> LaunchError:
        if not outcome.exists():
            for line in last_lines(directory / "ranks", ranks):
                log(tail.add(line))
        return training_failure(what, code, tail, outcome, ranks=ranks, collective_timeout=launch.collective_timeout)

    grace = launch.preemption_grace
    run_supervised(f"training job {job}", command, log, environment, stop, grace=grace, failure=failure)


def launch_section(job: Path) -> LaunchSection:
    """A job's launch keys."""
    from longrecipe_core.training.job import TrainingJob

    return TrainingJob.model_validate_json(job.read_text()).launch


def launch_evaluation(job: Path, *, log: Log) -> None:
    """Run `python -m longrecipe_core.evaluation JOB` and wait for it; raises LaunchError when it ends with an error."""
    command = [sys.executable, "-m", "longrecipe_core.evaluation", str(job)]
    run_supervised(f"evaluation job {job}", command, log, QUIET)


def launch_scoring(job: Path, *, log: Log) -> None:
    """Run `python -m longrecipe_core.scoring JOB` and wait for it; raises LaunchError when it ends with an error."""
    command = [sys.executable, "-m", "longrecipe_core.scoring", str(job)]
    run_supervised(f"scoring job {job}", command, log, QUIET)
