"""Records of runs, `<root>/runs/<UTC time>-<id>.json`: who made what when, how it ended, what resumes it."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from longrecipe_core.artifacts.exclusive import read_if_present, replace
from longrecipe_core.artifacts.location import Location
from longrecipe_core.artifacts.manifest import dump_record, load_record, utc_now
from longrecipe_core.artifacts.processes import is_dead, process_started, this_host
from longrecipe_core.artifacts.store import RUNS, ArtifactStore
from longrecipe_core.errors import ArtifactDamagedError, ManifestError

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 30.0
# Clocks of two machines differ, and a store may be out of reach for a while: far above the heartbeat.
SILENT_AFTER = timedelta(minutes=10)

RunState = Literal["running", "completed", "failed", "cancelled", "crashed"]


class StageRecord(BaseModel):
    """One stage of a run: what it gave, whether it was there already, and why or why not."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    stage: str
    kind: str
    fingerprint: str
    uri: str
    status: str
    why: str
    seconds: float


class RunRecord(BaseModel):
    """One run. `id` sorts by the time of its start; `recipe` is the resolved one, which holds no secret.

    `request` is the run that first asked for what `force` names: a run that goes on with an unfinished one has the
    same, so that what was made again already is not made a third time. `renewed` is the writer's last sign of life.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    id: str
    flow: str
    name: str
    recipe: dict[str, JsonValue]
    force: tuple[str, ...] = ()
    request: str
    started: str
    renewed: str
    ended: str | None = None
    state: RunState = "running"
    host: str
    pid: int
    process_started: str
    flow_run: str | None = None
    stages: tuple[StageRecord, ...] = ()
    error: str | None = None
    resume: str | None = None

    def state_now(self) -> RunState:
        """The state, `crashed` for one that says `running` and whose process is gone, or silent for ten minutes."""
        if self.state != "running":
            return self.state
        if self.host == this_host():
            return "crashed" if is_dead(self.host, self.pid, self.process_started) else "running"
        silent = datetime.now(UTC) - datetime.fromisoformat(self.renewed)
        return "crashed" if silent > SILENT_AFTER else "running"

    def uri(self, stage: str) -> str | None:
        """Where a stage's data lie, if the run got that far."""
        return next((one.uri for one in self.stages if one.stage == stage), None)


def new_record(run_id: str, flow: str, name: str, recipe: Mapping[str, Any], **more: Any) -> RunRecord:
    """The record of a run that this process begins now."""
    now = utc_now()
    return RunRecord(
        id=run_id,
        flow=flow,
        name=name,
        recipe=dict(recipe),
        started=now,
        renewed=now,
        host=this_host(),
        pid=os.getpid(),
        process_started=process_started(os.getpid()) or "",
        **({"request": run_id} | more),
    )


class RunRecords:
    """The records of a store. Each has one writer only, so that replacing it needs no condition."""

    def __init__(self, store: ArtifactStore) -> None:
        self._place = store.location / RUNS

    def recipe_place(self, run_id: str) -> Location:
        """Where a run's resolved recipe lies, as a file that `longrecipe run` takes."""
        return self._place / f"{run_id}.yaml"

    def write(self, record: RunRecord) -> None:
        """Create or replace a record; raises what the filesystem does."""
        self._write(f"{record.id}.json", dump_record(record))

    def write_recipe(self, run_id: str, text: str) -> None:
        """Put the resolved recipe beside the record."""
        self._write(f"{run_id}.yaml", text.encode())

    def find(self, run_id: str) -> RunRecord | None:
        """A run's record, or None. Raises ArtifactDamagedError or ManifestError for one that can't be read."""
        path = self._place / f"{run_id}.json"
        data = read_if_present(path.fs, path.path)
        return None if data is None else load_record(RunRecord, data, path.uri)

    def ids(self) -> list[str]:
        """Of all runs, newest first."""
        return [name.removesuffix(".json") for name in reversed(self._place.children()) if name.endswith(".json")]

    def newest_first(self) -> Iterator[RunRecord]:
        """All records, each read when it is asked for; one that can't be read is told and left out."""
        for run_id in self.ids():
            try:
                record = self.find(run_id)
            except (ArtifactDamagedError, ManifestError) as error:
                logger.warning("%s", error)
                continue
            if record is not None:
                yield record

    def all(self) -> Iterator[RunRecord]:
        """As `newest_first`, for those who must not miss one: raises for a record that can't be read."""
        return (record for run_id in self.ids() if (record := self.find(run_id)) is not None)

    def remove(self, run_id: str) -> None:
        """Remove a record and its recipe; does nothing where they are gone."""
        for name in (f"{run_id}.json", f"{run_id}.yaml"):
            path = self._place / name
            try:
                path.fs.rm_file(path.path)
            except FileNotFoundError:
                continue

    def _write(self, name: str, data: bytes) -> None:
        if self._place.local:
            os.makedirs(self._place.path, exist_ok=True)
        replace(self._place.fs, (self._place / name).path, data)


class LiveRecord:
    """The record of the run that this process is at: written at once on a change, and regularly as a sign of life.

    A store that can't be reached is told in the log and tried again: it must not end a run that works well.
    """

    def __init__(self, store: ArtifactStore, record: RunRecord, *, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._records, self._record = RunRecords(store), record
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._heartbeat = heartbeat
        self._thread = threading.Thread(target=self._beat, name="run-record", daemon=True)
        self.update()
        self._thread.start()

    def update(self, **changes: Any) -> None:
        """Change fields and write the record."""
        with self._lock:
            self._record = self._record.model_copy(update=changes | {"renewed": utc_now()})
            try:
                self._records.write(self._record)
            except Exception as error:  # noqa: BLE001 - clients of object stores raise their own; the next beat tries again
                logger.warning("the record of run %s could not be written: %s", self._record.id, error)

    def end(self, state: RunState, **changes: Any) -> None:
        """Write how the run ended; no sign of life follows."""
        self._stop.set()
        self._thread.join()
        self.update(state=state, ended=utc_now(), **changes)

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat):
            self.update()


def host_name(record: RunRecord) -> str:
    """The machine that a run is or was on, as people call it."""
    return record.host.split(" ", 1)[0]
