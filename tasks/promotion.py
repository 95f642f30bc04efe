"""Whether a new model becomes the one that `latest` leads to."""

from typing import Any, Literal

from prefect.events import emit_event
from pydantic import BaseModel, ConfigDict

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore
from longrecipe_core.artifacts.manifest import utc_now
from longrecipe_core.artifacts.pointers import Pointer, Refused, move_pointer, read_pointer
from longrecipe_core.errors import ArtifactDamagedError, ArtifactMissingError
from longrecipe_core.evaluation.comparison import Scores, scores, shortfalls
from longrecipe_core.evaluation.table import read_rows
from tasks.evaluation import MEASURED, MERGED
from tasks.outside import look_outside
from tasks.run import Run, run_log
from tasks.stage_task import stage_task
from tasks.stages import STAGES, stage_keys


class Candidate(BaseModel):
    """A run's merged model, what it was measured on and with which result, and the fingerprints of all stages."""

    model_config = ConfigDict(frozen=True)

    model: ArtifactRef
    tokens: ArtifactRef
    evaluation: ArtifactRef
    report: ArtifactRef
    fingerprints: dict[str, str]


class Measured(BaseModel):
    """The present model's evaluation, and what makes its nats per token comparable with the candidate's."""

    model_config = ConfigDict(frozen=True)

    evaluation: ArtifactRef
    nll_scale: float = 1.0


class Decision(BaseModel):
    """What became of a candidate: `same` when it is the present model already."""

    outcome: Literal["promoted", "kept", "same"]
    model: str
    new: Scores
    present: Scores | None
    reasons: list[str]


def nothing_new(run: Run) -> str | None:
    """Why there is nothing to train, in one line; None when there is.

    Cheap: outside inputs are looked at, whose digests are remembered, and the pointer's artifacts must be there.
    """
    store, name = run.open_store(), run.recipe.name
    pointer = read_pointer(store, name)
    if pointer is None or run.force or not all(_is_there(store, uri) for uri in pointer.refs):
        return None
    keys = stage_keys(run.recipe, look_outside(run.recipe, store))
    if keys == pointer.fingerprints:
        return f"{name}: nothing has changed since {pointer.promoted}, when {pointer.model} was promoted"
    refused = pointer.refused
    if refused and keys == refused.fingerprints and run.recipe.promotion.model_dump(mode="json") == refused.tolerances:
        return f"{name}: nothing has changed since {refused.when}, when {refused.model} was not promoted"
    return None


def present_model(run: Run, pointer: Pointer | None) -> ArtifactRef | None:
    """Reference to the model that a pointer leads to, if it is there and whole."""
    if pointer is None:
        return None
    store = run.open_store()
    try:
        ref = store.ref(store.manifest_of(pointer.model))
        store.verify(ref)
    except (ArtifactMissingError, ArtifactDamagedError) as error:
        run_log()(f"{run.recipe.name}: the present model can't be compared with: {error}")
        return None
    return ref


def same_tokenizer(store: ArtifactStore, one: ArtifactRef, other: ArtifactRef) -> bool:
    """Whether two checkpoints come with the same tokenizer, file by file."""
    from longrecipe_core.modeling.files import TOKENIZER_PATTERNS, matches

    first, second = (
        {file.name: file.sha256 for file in store.manifest_of(ref).files if matches(file.name, TOKENIZER_PATTERNS)}
        for ref in (one, other)
    )
    return first == second


def corpus_of(store: ArtifactStore, tokens: ArtifactRef) -> ArtifactRef:
    """The documents that an artifact of stage `tokenize` was made from."""
    corpus = store.manifest_of(tokens).inputs[STAGES["tokenize"].inputs.index("corpus")]
    return ArtifactRef(uri=corpus.uri, kind=corpus.kind, fingerprint=corpus.fingerprint)


def validation_tokens(store: ArtifactStore, tokens: ArtifactRef) -> int:
    """Number of tokens in the validation documents."""
    splits: Any = store.manifest_of(tokens).metrics["splits"]
    return int(splits["validation"]["tokens"])


@stage_task("promote")
def promote(run: Run, candidate: Candidate, present: Pointer | None, measured: Measured | None) -> Decision | None:
    """Let `latest` lead to the candidate unless it is worse than the present model; None when another run has moved it.

    Args:
        run: the recipe, whose section `promotion` has the tolerances, and the store.
        candidate: the new model.
        present: the pointer that the comparison was made for; None when there was none.
        measured: the present model on the candidate's documents; None when there is none to compare with.
    """
    store, name = run.open_store(), run.recipe.name
    store.verify(candidate.model)
    window = store.manifest_of(candidate.evaluation).metrics["window"]
    assert isinstance(window, int)
    new = scores(read_rows(store.fetch(candidate.evaluation)), MERGED, window)
    old = (
        scores(read_rows(store.fetch(measured.evaluation)), MEASURED, window, measured.nll_scale) if measured else None
    )
    reasons = shortfalls(new, old, run.recipe.promotion) if old else []
    if not move_pointer(store, name, present, _moved(run, candidate, present, reasons)):
        run_log()(f"{name}: another run has moved the pointer meanwhile; compares again")
        return None
    outcome: Literal["promoted", "kept", "same"] = "kept" if reasons else "promoted"
    if present is not None and present.model == candidate.model.uri:
        outcome = "same"
    decision = Decision(outcome=outcome, model=candidate.model.uri, new=new, present=old, reasons=reasons)
    _tell(name, decision, present)
    return decision


def _moved(run: Run, candidate: Candidate, present: Pointer | None, reasons: list[str]) -> Pointer:
    now = utc_now()
    if reasons:
        assert present is not None
        refused = Refused(
            model=candidate.model.uri,
            fingerprints=candidate.fingerprints,
            tolerances=run.recipe.promotion.model_dump(mode="json"),
            reasons=tuple(reasons),
            when=now,
            run=run.id,
        )
        return present.model_copy(update={"refused": refused})
    previous = present and (present.previous if present.model == candidate.model.uri else present.model)
    return Pointer(
        refs=(candidate.model.uri, candidate.evaluation.uri, candidate.report.uri),
        model=candidate.model.uri,
        evaluation=candidate.evaluation.uri,
        fingerprints=candidate.fingerprints,
        promoted=now,
        run=run.id,
        previous=previous,
    )


def _tell(name: str, decision: Decision, present: Pointer | None) -> None:
    """One line in the log, and an event for automations."""
    log = run_log()
    if decision.outcome == "same":
        log(f"{name}: {decision.model} is the present model already; its evaluation is the new one")
        return
    if decision.outcome == "promoted":
        log(f"{name}: promoted {decision.model}; {_compared(decision)}")
    else:
        log(f"{name}: kept {present and present.model}, {decision.model} is worse: {'; '.join(decision.reasons)}")
    emit_event(
        event=f"longrecipe.model.{decision.outcome}",
        resource={"prefect.resource.id": f"longrecipe.model.{name}", "prefect.resource.name": name},
        payload=decision.model_dump(mode="json") | {"present_model": present and present.model},
    )


def _compared(decision: Decision) -> str:
    if decision.present is None:
        return "there was no model to compare it with"
    pairs = decision.present.model_dump(exclude_none=True).items()
    now = decision.new.model_dump()
    return ", ".join(f"{name} {now[name]:.4f} after {value:.4f}" for name, value in pairs if now[name] is not None)


def _is_there(store: ArtifactStore, uri: str) -> bool:
    try:
        store.manifest_of(uri)
    except (ArtifactMissingError, ArtifactDamagedError):
        return False
    return True
