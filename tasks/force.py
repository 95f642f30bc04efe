"""Making a stage again although its result is in the store: once per request, however often the run is resumed."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from longrecipe_core.artifacts import ArtifactStore, RunRecords, TrainingState
from longrecipe_core.artifacts.state import FORCED

if TYPE_CHECKING:
    from tasks.run import Run


def first_request(run: "Run", flow_name: str, store: ArtifactStore) -> str:
    """The run whose `force` this one carries out: an earlier one of the same recipe and force that was not completed.

    So the same command, given again after a kill, does not make again what it has made already. Keys in `launch`, which
    decide no result, may be others.
    """
    if run.force:
        wanted = flow_name, run.force, deciding(run.recipe.model_dump(mode="json"))
        for earlier in RunRecords(store).newest_first():
            if earlier.id != run.id and (earlier.flow, earlier.force, deciding(earlier.recipe)) == wanted:
                return run.id if earlier.state == "completed" else earlier.request
    return run.id


def request_of(run: "Run", store: ArtifactStore) -> str:
    """The request that this run carries out, as its record says; a run without a record stands for itself."""
    record = RunRecords(store).find(run.id)
    return record.request if record else run.id


def start_anew(state: TrainingState, request: str) -> None:
    """Drop the stage's saved states, unless they were made for this very request."""
    if state.request() != request:
        state.clear()
        state.note_request(request)


def clear_old_work(state: TrainingState, staging: Path) -> None:
    """Remove what lies in `staging` from before the request that is under way, if one is.

    Its checkpoints may be newer than the stored states, but on this machine only.
    """
    request, note = state.request(), staging / FORCED
    if request is None or (note.exists() and note.read_text() == request):
        return
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    note.write_text(request)


def deciding(recipe: Mapping[str, object]) -> dict[str, object]:
    """A resolved recipe without what decides no result."""
    return {key: value for key, value in recipe.items() if key != "launch"}
