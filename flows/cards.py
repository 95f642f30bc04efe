"""What a run's page shows at the end: markdown artifacts of the flow run, made from the store alone.

Published from the flow's body and not by the stages, so that stages that were hits are shown too. Nothing here needs
torch, and no weights are read: of a remote checkpoint only its `about/metrics.jsonl`.
"""

import io
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from flows.markdown import block, image, plain, table
from flows.summary import RunSummary
from longrecipe_core.artifacts import ArtifactStore
from longrecipe_core.artifacts.exclusive import read_if_present
from longrecipe_core.artifacts.location import open_location
from longrecipe_core.training.metrics_file import parse_metrics
from tasks.names import artifact_key
from tasks.run import Run, StageOutcome, run_log

Card = Callable[[Run, ArtifactStore, RunSummary], str | None]

DATA_STAGES = ("tokenize", "score", "index", "replay")
TRAININGS = ("base", "warmup", "extend", "anneal")
EVALUATIONS = ("evaluate", "measure", "measure_rope")
DATA_ROWS = 60
"""Of one stage, at most; a corpus may have hundreds of sources."""


def publish_cards(
    run: Run, summary: RunSummary, resume_command: str | None, names: Collection[str] | None = None
) -> None:
    """Publish the run's tables and plots as Prefect artifacts; for a failed run, the command that resumes it.

    Of `names` only, where they are given. A card that can't be made is told in the log and left out. Raises what
    Prefect's client does.
    """
    if FlowRunContext.get() is None:
        return
    store, log = run.open_store(), run_log()
    if resume_command is not None:
        _publish(run, "resume", "The command that resumes this run", block(resume_command))
    for name, (description, make) in CARDS.items():
        if names is not None and name not in names:
            continue
        try:
            text = make(run, store, summary)
        except Exception as error:  # noqa: BLE001 - clients of object stores raise their own
            log(f"card {name} could not be made: {type(error).__name__}: {error}")
            continue
        if text is not None:
            _publish(run, name, description, text)


def stage_card(run: Run, store: ArtifactStore, summary: RunSummary) -> str | None:
    """The stages: made or found, why, how long, where. A run that had nothing to do has no card."""
    if not summary.outcomes:
        return None
    rows = [(o.stage, o.status, o.why, f"{o.seconds:.1f}", o.ref.uri) for o in summary.outcomes]
    heading = f"{plain(run.recipe.name)}: {len(rows)} stages, {sum(row[1] == 'ran' for row in rows)} of them ran\n\n"
    return heading + table(("stage", "hit or ran", "why", "seconds", "uri"), rows, right=[3])


def data_card(run: Run, store: ArtifactStore, summary: RunSummary) -> str | None:
    """What the stages that make data have counted."""
    parts = []
    for outcome in _of(summary, DATA_STAGES):
        figures = list(_flat(store.manifest_of(outcome.ref).metrics))
        more = len(figures) - DATA_ROWS
        parts.append(f"### {outcome.stage}\n\n" + table(("what", "figure"), figures[:DATA_ROWS], right=[1]))
        if more > 0:
            parts.append(f"and {more} more in the manifest beside {plain(outcome.ref.uri)}\n")
    return "\n".join(parts) or None


def loss_card(run: Run, store: ArtifactStore, summary: RunSummary) -> str | None:
    """Loss curves of all trainings."""
    curves = {outcome.stage: rows for outcome in _of(summary, TRAININGS) if (rows := _metrics(outcome))}
    if not curves:
        return None
    from longrecipe_core.training.loss_plot import plot_losses  # matplotlib

    cells = [
        (
            stage,
            f"{rows[-1]['step']:,}",
            f"{sum(row['tokens'] for row in rows):,}",
            f"{rows[0]['loss']:.4f}",
            f"{rows[-1]['loss']:.4f}",
            f"{sum(row['tokens'] for row in rows) / sum(row['seconds'] for row in rows):,.0f}",
        )
        for stage, rows in curves.items()
    ]
    head = ("training", "steps", "tokens", "first loss", "last loss", "tokens/s")
    return image(plot_losses(curves), "loss over the steps") + "\n" + table(head, cells, right=range(1, 6))


def evaluation_card(run: Run, store: ArtifactStore, summary: RunSummary) -> str | None:
    """The evaluation's table and plot; of several evaluations, their models numbered in order."""
    evaluations = _of(summary, EVALUATIONS)
    if not evaluations:
        return None
    import pyarrow.parquet as pq

    from longrecipe_core.evaluation.plot import plot_nll  # matplotlib
    from longrecipe_core.evaluation.table import text_table

    rows: list[dict[str, Any]] = []
    for number, outcome in enumerate(evaluations, start=1):
        data = _file(outcome, "evaluation.parquet")
        if data is None:
            raise FileNotFoundError(f"{outcome.ref.uri}/evaluation.parquet")
        suffix = f" {number}" if len(evaluations) > 1 else ""
        rows += [row | {"model": row["model"] + suffix} for row in pq.read_table(io.BytesIO(data)).to_pylist()]
    window: Any = store.manifest_of(evaluations[-1].ref).metrics.get("window", run.recipe.context.window)
    png = io.BytesIO()
    plot_nll(rows, window, png, dpi=90)
    return image(png.getvalue(), "mean NLL by position") + "\n" + block(text_table(rows))


CARDS: dict[str, tuple[str, Card]] = {
    "stages": ("The stages of this run", stage_card),
    "data": ("What the data stages have counted", data_card),
    "loss": ("Loss of the trainings", loss_card),
    "evaluation": ("Evaluation", evaluation_card),
}


def _publish(run: Run, name: str, description: str, text: str) -> None:
    create_markdown_artifact(text, key=artifact_key(run.recipe, name), description=description)


def _of(summary: RunSummary, stages: tuple[str, ...]) -> list[StageOutcome]:
    return [outcome for outcome in summary.outcomes if outcome.stage in stages]


def _file(outcome: StageOutcome, *names: str) -> bytes | None:
    """One file of an artifact, without the others; None where it has no such file."""
    place = open_location(outcome.ref.uri)
    for name in names:
        place = place / name
    return read_if_present(place.fs, place.path)


def _metrics(outcome: StageOutcome) -> list[dict[str, Any]]:
    """What a training told, step by step; nothing for a checkpoint that was adopted."""
    data = _file(outcome, "about", "metrics.jsonl")
    return parse_metrics(data.decode("utf-8")) if data else []


def _flat(metrics: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Figures by their path, as in `documents, skipped, empty`; lists, such as histograms, are left out."""
    for name, value in metrics.items():
        path = f"{above}, {name}" if above else name
        if isinstance(value, Mapping):
            yield from _flat(value, path) if value else [(path, "none")]
        elif isinstance(value, float):
            yield path, f"{value:,.4g}"
        elif isinstance(value, int):
            yield path, f"{value:,}"
        elif isinstance(value, str):
            yield path, value
