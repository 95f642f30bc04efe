"""What every stage does around its work: key, look-up, verification, commit."""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict, Field

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, Lease, TrainingState, fingerprint
from longrecipe_core.artifacts.manifest import new_attempt
from longrecipe_core.errors import AdoptionError, CorpusError, EvaluationError, ModelError
from longrecipe_core.launching.processes import wait_for_jobs
from longrecipe_core.recipe import Recipe, SourceSection, stage_part
from tasks.adopt import adopt, adopted
from tasks.decide import Decision, decide, refuse_before_start
from tasks.force import clear_old_work, request_of, start_anew
from tasks.stages import STAGES, Stage, stage_key, used_inputs

Log = Callable[[str], None]


class Run(BaseModel):
    """What every task is told: the recipe, where the artifacts are, and how to go on from those that are there.

    `start_from` is the first stage that may be computed, `force` those that are made again although they are in the
    store, `adopt` says of stages which checkpoint is taken as their result. `id` names the run's record.
    """

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    store: str
    id: str = Field(default_factory=new_attempt)
    start_from: str | None = None
    force: tuple[str, ...] = ()
    adopt: dict[str, str] = Field(default_factory=dict)

    def open_store(self) -> ArtifactStore:
        """The artifact store."""
        return ArtifactStore(self.store)


class StageOutcome(BaseModel):
    """What a task returns: small, and JSON."""

    model_config = ConfigDict(frozen=True)

    stage: str
    ref: ArtifactRef
    status: Literal["hit", "ran"]
    why: str
    seconds: float


@dataclass(frozen=True)
class Work:
    """What a stage's work gets: where its inputs lie locally, an empty directory to fill, a log."""

    run: Run
    store: ArtifactStore
    stage: Stage
    key: str
    inputs: dict[str, ArtifactRef]
    output: Path
    log: Log
    lease: Lease

    def fetch(self, name: str) -> Path:
        """A verified local directory with one input's data."""
        return fetch_input(self.run, self.store, name, self.inputs[name])

    def contents(self) -> dict[str, str]:
        """What each input holds: its data's digest; from outside its fingerprint, which is that of its content.

        An input that was made again may hold other data under the same fingerprint.
        """
        return {
            name: ref.fingerprint if ref.kind == "outside" else self.store.manifest_of(ref).content_digest()
            for name, ref in self.inputs.items()
        }


def fetch_input(run: Run, store: ArtifactStore, name: str, ref: ArtifactRef) -> Path:
    """A verified local directory with the data of a stage's input `name`, on whatever machine this runs."""
    if ref.kind != "outside":
        return store.fetch(ref)
    # Imports torch, which a cached run has no need of.
    from longrecipe_core.modeling.source import fetch_model, model_identity

    hub = re.fullmatch(r"(.+)@([0-9a-f]{40})", ref.uri)
    path, commit = hub.groups() if hub else (ref.uri, None)
    recipe = run.recipe
    model = recipe.score.model if name == "score_model" and recipe.score else recipe.model
    trust = model is not None and model.trust_remote_code
    into = store.cache / "models" / ref.fingerprint[:16]
    directory = into
    if not into.exists():
        partial = into.with_name(f"{into.name}.{os.getpid()}.partial")  # renamed when it is whole
        directory = fetch_model(path, commit, trust, into=partial)
        if directory == partial:
            try:
                directory = partial.rename(into)
            except OSError:
                if not into.exists():
                    raise
                shutil.rmtree(partial)  # another worker of this machine was first
                directory = into
    identity = None if commit else model_identity(str(directory), None, store.digests, trust)
    if identity is not None and fingerprint(identity) != ref.fingerprint:
        if directory == into:
            shutil.rmtree(into)  # our own copy, which the next run downloads again
        raise ModelError(f"{path}: is not the model that it was when this run began; run again")
    return directory


def settle(run: Run, name: str, inputs: dict[str, ArtifactRef], make: Callable[[Work], dict[str, Any]]) -> StageOutcome:
    """Return the stage's artifact from the store if it is there and whole; else make, commit and return it.

    Raises StartFromError for a stage before `start_from` that would have to be computed, AdoptionError for a checkpoint
    that can't be adopted, and what `make` raises.
    """
    started = time.monotonic()
    stage, store, log = STAGES[name], run.open_store(), run_log()
    key = stage_key(run.recipe, stage, inputs)
    request = request_of(run, store) if name in run.force else run.id

    def outcome(ref: ArtifactRef, status: Literal["hit", "ran"], why: str) -> StageOutcome:
        return StageOutcome(stage=name, ref=ref, status=status, why=why, seconds=time.monotonic() - started)

    decision = decide(run, store, stage, inputs, key, request)
    if decision.manifest is None:
        refuse_before_start(run, stage, decision)
        with Lease(
            store, key, on_wait=lambda holder: log(f"{name}: waits for {holder.owner}, which makes it")
        ) as lease:
            decision = decide(run, store, stage, inputs, key, request)  # again: another may have made it meanwhile
            if decision.manifest is None:
                work = Work(run, store, stage, key, inputs, store.staging / key[:16] / "output", log, lease)
                return outcome(_make(work, decision, request, make), "ran", decision.why)
    ref = store.ref(decision.manifest)
    log(f"{name}: hit, {ref.uri}")
    return outcome(ref, "hit", decision.why)


def _make(work: Work, decision: Decision, request: str, make: Callable[[Work], dict[str, Any]]) -> ArtifactRef:
    started = time.monotonic()
    name, staging, about, source = work.stage.name, work.output.parent, work.output / "about", decision.source
    work.log(f"{name}: {'is' if source else 'runs, because'} {decision.why}")
    wait_for_jobs(staging, lambda line: work.log(f"{name}: {line}"))
    state = TrainingState(work.store, work.key, work.lease)
    if name in work.run.force:
        start_anew(state, request)
    clear_old_work(state, staging)
    shutil.rmtree(work.output, ignore_errors=True)
    work.output.mkdir(parents=True)
    metrics = adopt(work, source) if source else {}
    # Set aside what can't be used or is to be replaced; nothing is deleted. After `adopt`, which may refuse.
    place = ArtifactRef(uri=work.store.place(work.stage.kind, work.key).uri, kind=work.stage.kind, fingerprint=work.key)
    replaced = source is not None or name in work.run.force
    work.store.set_aside(place, decision.why, "replaced" if replaced else "damaged")
    if not source:
        metrics = make(work)
        _refuse_changed_sources(work)
    about.mkdir(exist_ok=True)
    (about / "recipe.yaml").write_text(work.run.recipe.to_yaml(), encoding="utf-8")
    seconds = time.monotonic() - started
    work.lease.check()
    ref = work.store.commit(
        work.stage.kind,
        work.key,
        work.output,
        # What is adopted was not made from them.
        inputs={} if source else {one: work.inputs[one] for one in used_inputs(work.run.recipe, work.stage)},
        recipe=stage_part(work.run.recipe, name),
        seconds=seconds,
        metrics=metrics,
        consume=True,
        stage=(name, work.stage.version),
        forced=state.request(),
        adopted=adopted(source) if source else None,
    )
    if source and work.store.manifest_of(ref).content_digest() != source.content:
        work.store.set_aside(ref, "changed while it was adopted")
        raise AdoptionError(f"adopt.{name}: {source.uri}: changed while it was copied; run again")
    state.clear()
    state.note_request(None)
    shutil.rmtree(staging, ignore_errors=True)  # where another machine may still write
    if staging.exists():
        work.log(f"{name}: {staging} could not be removed and is of no use any more")
    work.log(f"{name}: done in {seconds:.1f} s, {ref.uri}")
    return ref


def _refuse_changed_sources(work: Work) -> None:
    """Raise CorpusError where the sources are no longer what the key says: the result would be wrongly named."""
    for name in ("corpus", "replay_sources"):
        if name in work.inputs:
            sources = getattr(work.run.recipe, name.removesuffix("_sources")).sources
            if sources_reference(sources, work.store).fingerprint != work.inputs[name].fingerprint:
                raise CorpusError(f"{work.inputs[name].uri}: changed while stage {work.stage.name} read it; run again")
    for name, ref in benchmarks_reference(work.run.recipe).items():
        if name in work.inputs and work.inputs[name] != ref:
            raise EvaluationError(f"{ref.uri}: changed while stage {work.stage.name} read it; run again")


def sources_reference(sources: Sequence[SourceSection], store: ArtifactStore) -> ArtifactRef:
    """Sources as one outside input, known by their content; files are read once and remembered."""
    from longrecipe_core.corpus.identity import source_digest

    digests = [source_digest(source, store.digests) for source in sources]
    uri = ", ".join(source.path for source in sources)
    return ArtifactRef(uri=uri, kind="outside", fingerprint=fingerprint(digests))


def benchmarks_reference(recipe: Recipe) -> dict[str, ArtifactRef]:
    """The recipe's own benchmark tasks as the outside input `benchmarks`, known by their content; empty without any."""
    section = recipe.evaluation.benchmarks
    if section is None or section.include_path is None:
        return {}
    from longrecipe_core.evaluation.benchmark_tasks import tasks_digest

    digest = tasks_digest(section.include_path)
    return {"benchmarks": ArtifactRef(uri=section.include_path, kind="outside", fingerprint=fingerprint(digest))}


def run_log() -> Log:
    """Prefect's run logger inside a run, the module's own outside."""
    try:
        return get_run_logger().info
    except MissingContextError:
        return logging.getLogger("longrecipe").info
