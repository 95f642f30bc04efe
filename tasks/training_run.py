"""One training job with its lease, its saved states and its end."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longrecipe_core.artifacts import TrainingState
from longrecipe_core.errors import (
    ArtifactDamagedError,
    JobKilledError,
    JobPreemptedError,
    LaunchError,
    LeaseLostError,
)
from longrecipe_core.recipe import RopeSection, TrainingSection
from tasks.gpu_slots import gpu_slots
from tasks.progress import training_progress
from tasks.run import Log, Work

if TYPE_CHECKING:
    from longrecipe_core.training.job import DataSpec

POLL_SECONDS = 1.0


def train(
    work: Work, *, start: Path, data: "DataSpec", training: TrainingSection, rope: RopeSection | None
) -> dict[str, Any]:
    """Train from the model in `start` into the stage's output; resume from the newest state, if any.

    The caller holds the stage's lease. Raises LaunchError when the job fails, and was not started again (see
    `with_restarts`); its states stay for the next run.
    """
    import torch

    from longrecipe_core.launching import launch_training
    from longrecipe_core.modeling import finish_checkpoint
    from longrecipe_core.training.checkpoint import complete_steps
    from longrecipe_core.training.job import TrainingJob
    from longrecipe_core.training.metrics_file import read_metrics

    recipe, scratch = work.run.recipe, work.output.parent
    trust = bool(recipe.model and recipe.model.trust_remote_code)
    job = TrainingJob(
        stage=work.stage.name,
        model=start,
        trust_remote_code=trust,
        rope=rope,
        window=recipe.context.window,
        target_length=recipe.context.target_length if rope else None,
        data=data,
        training=training,
        launch=recipe.launch,
        seed=recipe.seed,
        inputs=work.contents(),
        checkpoints=scratch / "checkpoints",
        output=work.output,
        logs=scratch / "logs",
    )
    (scratch / "job.json").write_text(job.model_dump_json(indent=1))
    state = TrainingState(work.store, work.key, work.lease)
    restore(state, job.checkpoints, work, job.inputs)
    with (
        gpu_slots(work, recipe.launch.processes),
        training_progress(work, job.logs / "metrics.jsonl"),
        states_kept(state, job.checkpoints, recipe.launch.checkpoints_kept, work.log) as stop,
    ):
        with_restarts(
            lambda: launch_training(scratch / "job.json", cuda=torch.cuda.is_available(), log=work.log, stop=stop),
            newest=lambda: max(complete_steps(job.checkpoints), default=0),
            restarts=recipe.launch.restarts,
            stop=stop,
            log=lambda line: work.log(f"{work.stage.name}: {line}"),
        )
    summary = finish_checkpoint(work.output, start, trust_remote_code=trust)
    shutil.copytree(job.logs, work.output / "about")
    rows = read_metrics(job.logs / "metrics.jsonl")
    return {
        "steps": rows[-1]["step"],
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        "tokens": sum(row["tokens"] for row in rows),
        "parameters": summary.parameters,
    }


def with_restarts(
    launch: Callable[[], None], *, newest: Callable[[], int], restarts: int, stop: threading.Event, log: Log
) -> None:
    """Run a job to its end, starting it again from its newest checkpoint where it was preempted or killed by a signal.

    Args:
        launch: Runs the job once; raises LaunchError.
        newest: The step of the newest complete checkpoint, 0 before the first.
        restarts: How often in a row; a job that has got to a newer checkpoint counts from the start again, since a long
            job on machines that come and go is no failing one.
        stop: When it is set, the job is not started again.
        log: Called with one line per restart.

    Raises:
        LaunchError: An error of the job's own, which would only come again, or one restart too many.
    """
    count, before = 0, newest()
    while True:
        try:
            launch()
            return
        except (JobKilledError, JobPreemptedError) as error:
            step = newest()
            count = 1 if step > before else count + 1
            if stop.is_set() or count > restarts:
                raise
            before = step
            log(f"{error}; starts again after step {step}, restart {count} of launch.restarts {restarts}")


def restore(state: TrainingState, checkpoints: Path, work: Work, inputs: dict[str, str]) -> None:
    """Put the newest whole state where the job looks for it, unless a newer one is there from a killed run.

    A state is verified on the way. One that was trained from other inputs, which were made again since under the same
    fingerprint, is of no use: all are dropped and training starts anew.
    """
    from longrecipe_core.training.checkpoint import complete_steps, made_from

    while (step := state.latest()) is not None:
        local = complete_steps(checkpoints)
        if step < max(local, default=-1):
            break
        # The local one may share its bytes with the stored one, so it is not to be trusted more: load it again.
        shutil.rmtree(checkpoints / f"step-{step}", ignore_errors=True)
        partial = checkpoints / f"step-{step}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            state.load(step, partial)
        except ArtifactDamagedError as error:
            state.set_aside(step, str(error))
            continue
        partial.rename(checkpoints / f"step-{step}")
        break
    local = complete_steps(checkpoints)
    if local and made_from(checkpoints / f"step-{local[-1]}") != inputs:
        work.log(f"{work.stage.name}: its saved states were trained from other inputs; starts anew")
        state.clear()
        shutil.rmtree(checkpoints)
        shutil.rmtree(checkpoints.with_name("logs"), ignore_errors=True)
    elif local:
        work.log(f"{work.stage.name}: resumes after step {local[-1]}")


@contextmanager
def states_kept(state: TrainingState, checkpoints: Path, kept: int, log: Log) -> Iterator[threading.Event]:
    """While the job runs, store each checkpoint that it completes; yields the event that ends the job.

    A store that can't be reached is told and tried again: it must not end a job that trains well. A lost lease does
    end it, since another run trains the same.
    """
    done, stop = threading.Event(), threading.Event()
    lost: list[LeaseLostError] = []

    stored: int | None = None
    ended_well = False

    def look() -> None:
        nonlocal stored
        try:
            stored = keep_newest(state, checkpoints, kept, stored)
        except LeaseLostError as error:
            lost.append(error)
            stop.set()
        except Exception as error:  # noqa: BLE001 - clients of object stores raise their own; the next look tries again
            again = "" if done.is_set() else " and will be tried again"
            log(f"the training state could not be stored{again}: {error}")

    def follow() -> None:
        while not done.wait(POLL_SECONDS) and not lost:
            look()

    thread = threading.Thread(target=follow, name="training-states", daemon=True)
    thread.start()
    try:
        yield stop
        ended_well = True
    except LaunchError as error:
        raise lost[0] if lost else error from None
    finally:
        done.set()
        thread.join()
        if not ended_well and not lost:
            look()  # what the job saved at its very end, when it was told to: the next run may be on another machine
    if lost:
        raise lost[0]


def keep_newest(state: TrainingState, checkpoints: Path, kept: int, stored: int | None = None) -> int | None:
    """Store the newest complete checkpoint, unless it is step `stored`; returns the step that is stored now."""
    from longrecipe_core.training.checkpoint import complete_steps

    step = max(complete_steps(checkpoints), default=None)
    if step is None or step == stored or step in state.steps():
        return step
    copy = checkpoints / f"step-{step}.storing"
    shutil.rmtree(copy, ignore_errors=True)
    try:
        # A second name for the same bytes: the job may prune its own at any moment, and moving this one is free.
        shutil.copytree(checkpoints / f"step-{step}", copy, copy_function=_link)
    except (shutil.Error, FileNotFoundError):
        return stored  # pruned meanwhile, so a newer one is there: the next look takes that
    state.save(step, copy, kept, consume=True)
    shutil.rmtree(copy, ignore_errors=True)
    return step


def _link(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:  # a filesystem without hard links
        shutil.copyfile(source, target)
