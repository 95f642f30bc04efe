"""What a run would do: the same keys and look-ups, and no work."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore
from longrecipe_core.cost.table import cost_lines
from longrecipe_core.errors import LongRecipeError, RecipeError
from tasks.decide import before_start, check_choices, decide
from tasks.force import first_request
from tasks.outside import look_outside
from tasks.run import Run
from tasks.stages import STAGES, stage_key, used_inputs, used_stages

READER_GONE = 141
"""Exit code of a program whose reader went away: 128 + SIGPIPE, as shells have it."""


Status = Literal["hit", "run", "adopt", "refuse"]


@dataclass(frozen=True)
class PlannedStage:
    """One line of a plan."""

    stage: str
    status: Status
    why: str
    fingerprint: str


def plan(run: Run, flow_name: str = "extend-context") -> Iterator[PlannedStage]:
    """Per stage, `hit`, `run`, `adopt` or `refuse`, and why, in order.

    Raises:
        RecipeError: `start_from`, `force` or `adopt` name what the recipe has not.
    """
    check_choices(run)
    recipe, store = run.recipe, run.open_store()
    request = first_request(run, flow_name, store)
    refs = look_outside(recipe, store)
    coming: dict[str, str | None] = {}  # contents of stages that will be made or adopted, as far as they are known
    for stage in used_stages(recipe):
        inputs = {name: refs[name] for name in used_inputs(recipe, stage)}
        key = stage_key(recipe, stage, inputs)
        decision = decide(run, store, stage, inputs, key, request)
        status: Status = decision.action
        why, manifest = decision.why, decision.manifest
        if manifest is not None:
            used = {entry.fingerprint: entry.content_sha256 for entry in manifest.inputs}
            waits = [name for name in inputs if name in coming and used.get(inputs[name].fingerprint) != coming[name]]
            others = [name for name in waits if coming[name] is not None]
            if others:
                status, why, manifest = "run", f"made from another content of {', '.join(others)}", None
            elif waits:
                why = f"{why}; runs if {', '.join(waits)}, made again, has another content"
        if manifest is not None:
            refs[stage.name] = store.ref(manifest)
        else:
            coming[stage.name] = decision.source.content if decision.source else None
            refs[stage.name] = ArtifactRef(uri=store.place(stage.kind, key).uri, kind=stage.kind, fingerprint=key)
            if before_start(run, stage, status):
                status, why = "refuse", f"comes before start_from {run.start_from}; {why}"
        yield PlannedStage(stage.name, status, why, key)


def print_plan(run: Run) -> int:
    """Print a line per stage, an empty line, and what the trainings that would run cost; returns the exit code.

    Where a source can't be reached, so that no stage's state can be told, the costs of all trainings are printed before
    that error is raised.
    """
    store = run.open_store()
    planned: list[PlannedStage] = []
    unreached: LongRecipeError | None = None
    try:
        try:
            for line in plan(run):
                planned.append(line)
                print(f"{line.stage:<9} {line.status:<4} {line.fingerprint[:16]}  {line.why}", flush=True)
        except RecipeError:
            raise
        except LongRecipeError as error:
            unreached = error
        untrained = {line.stage for line in planned if line.status in ("hit", "adopt")}
        print("", *cost_lines(run.recipe, set(STAGES) - untrained, _samples(planned, store)), sep="\n", flush=True)
    except BrokenPipeError:
        # `plan | head`: what is still in the buffer must have somewhere to go when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    if unreached is not None:
        raise unreached
    return int(any(line.status == "refuse" for line in planned))


def _samples(planned: Sequence[PlannedStage], store: ArtifactStore) -> dict[str, int]:
    """Rows to train on, of the stages that have counted them."""
    counted = {}
    for line in planned:
        metric = {"index": "samples", "replay": "rows"}.get(line.stage)
        manifest = store.find(STAGES[line.stage].kind, line.fingerprint) if metric and line.status == "hit" else None
        rows = manifest.metrics.get(metric) if manifest and metric else None
        if isinstance(rows, int):
            counted[line.stage] = rows
    return counted
