"""What a run would do: the same keys and look-ups, and no work."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore
from longrecipe_core.cost.table import cost_lines
from longrecipe_core.errors import LongRecipeError
from longrecipe_core.recipe import Recipe
from tasks.outside import look_outside
from tasks.run import look_up
from tasks.stages import STAGES, stage_key, used_inputs, used_stages

READER_GONE = 141
"""Exit code of a program whose reader went away: 128 + SIGPIPE, as shells have it."""


@dataclass(frozen=True)
class PlannedStage:
    """One line of a plan."""

    stage: str
    status: str
    why: str
    fingerprint: str


def plan(recipe: Recipe, store: ArtifactStore) -> Iterator[PlannedStage]:
    """Per stage, `hit` or `run` and why, in order."""
    refs = look_outside(recipe, store)
    remade: list[str] = []
    for stage in used_stages(recipe):
        inputs = {name: refs[name] for name in used_inputs(recipe, stage)}
        key = stage_key(recipe, stage, inputs)
        manifest, why = look_up(store, stage, key)
        waits = [name for name in inputs if name in remade]
        if manifest is None:
            remade.append(stage.name)
            refs[stage.name] = ArtifactRef(uri=store.place(stage.kind, key).uri, kind=stage.kind, fingerprint=key)
            yield PlannedStage(stage.name, "run", why, key)
        else:
            refs[stage.name] = store.ref(manifest)
            note = f"{why}; runs if {', '.join(waits)}, made again, has another content" if waits else why
            yield PlannedStage(stage.name, "hit", note, key)


def print_plan(recipe: Recipe, store: ArtifactStore) -> int:
    """Print a line per stage, an empty line, and what the trainings that would run cost; returns the exit code.

    Where a source can't be reached, so that no stage's state can be told, the costs of all trainings are printed before
    that error is raised.
    """
    planned: list[PlannedStage] = []
    unreached: LongRecipeError | None = None
    try:
        try:
            for line in plan(recipe, store):
                planned.append(line)
                print(f"{line.stage:<9} {line.status:<4} {line.fingerprint[:16]}  {line.why}", flush=True)
        except LongRecipeError as error:
            unreached = error
        known = {line.stage for line in planned if line.status == "hit"}
        print("", *cost_lines(recipe, set(STAGES) - known, _samples(planned, store)), sep="\n", flush=True)
    except BrokenPipeError:
        # `plan | head`: what is still in the buffer must have somewhere to go when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    if unreached is not None:
        raise unreached
    return 0


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
