"""What every flow does around its stages: the run's record in the store, and at the end its cards."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun, TerminationSignal

from flows.cards import publish_cards
from flows.resume import resume_command
from flows.summary import RunSummary
from flows.worker import end_with_worker
from longrecipe_core.artifacts import ArtifactStore, LiveRecord, RunRecords, StageRecord, new_record
from tasks.decide import check_choices
from tasks.force import first_request
from tasks.run import Run, StageOutcome, run_log

if TYPE_CHECKING:
    from longrecipe_core.artifacts.runs import RunState

CANCELLED = (KeyboardInterrupt, TerminationSignal, CancelledRun, asyncio.CancelledError)


@contextmanager
def recorded(run: Run, flow_name: str, cards: Collection[str] | None = None) -> Iterator[RunSummary]:
    """Yield the summary that the flow's stages are added to; record in the store how the run goes, and how it ends.

    `cards` names those that its page gets, all when not given.

    A run that ends badly says in its log, and in a note on the exception, which command resumes it. Raises RecipeError
    before anything is done where `start_from`, `force` or `adopt` name what the recipe has not.
    """
    end_with_worker()
    check_choices(run)
    store, log, summary = run.open_store(), run_log(), RunSummary()
    command = resume_command(run, flow_name)
    record = LiveRecord(
        store,
        new_record(
            run.id,
            flow_name,
            run.recipe.name,
            run.recipe.model_dump(mode="json"),
            force=run.force,
            request=_first_request(run, flow_name, store),
            flow_run=_flow_run_id(),
            resume=command,  # from the start: whoever is killed can't tell it any more
        ),
    )
    summary.on_add(lambda: record.update(stages=_stages(summary)))
    try:
        _keep_recipe(run, store)
        yield summary
    except BaseException as error:
        state = end_of(error)
        record.end(state, error=_one_line(error))
        if command:
            log(f"{flow_name} {state}; to resume: {command}")
            error.add_note(f"to resume: {command}")
        _publish(run, summary, command, cards)
        raise
    else:
        record.end("completed", resume=None)
        _publish(run, summary, None, cards)
    finally:
        summary.on_add(None)  # what a flow returns may be serialized


def _first_request(run: Run, flow_name: str, store: ArtifactStore) -> str:
    try:
        return first_request(run, flow_name, store)
    except Exception as error:  # noqa: BLE001 - clients of object stores raise their own
        run_log()(f"earlier runs can't be read, so what is forced is made anew: {error}")
        return run.id


def end_of(error: BaseException) -> "RunState":
    """What an exception that ends a flow makes of its run."""
    if isinstance(error, CANCELLED):
        return "cancelled"
    return "failed" if isinstance(error, Exception) else "crashed"


def _stages(summary: RunSummary) -> tuple[StageRecord, ...]:
    return tuple(_stage(outcome) for outcome in summary.outcomes)


def _stage(outcome: StageOutcome) -> StageRecord:
    return StageRecord(
        stage=outcome.stage,
        kind=outcome.ref.kind,
        fingerprint=outcome.ref.fingerprint,
        uri=outcome.ref.uri,
        status=outcome.status,
        why=outcome.why,
        seconds=round(outcome.seconds, 3),
    )


def _keep_recipe(run: Run, store: ArtifactStore) -> None:
    try:
        RunRecords(store).write_recipe(run.id, run.recipe.to_yaml())
    except Exception as error:  # noqa: BLE001 - as the record itself: no reason to fail
        run_log()(f"the resolved recipe could not be put beside the run's record: {error}")


def _publish(run: Run, summary: RunSummary, command: str | None, cards: Collection[str] | None) -> None:
    try:
        publish_cards(run, summary, command, cards)
    except Exception as error:  # noqa: BLE001 - a page that can't be drawn costs no run
        run_log()(f"the run's cards could not be published: {type(error).__name__}: {error}")


def _flow_run_id() -> str | None:
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
