"""What a run's page shows, as Prefect's own server has it."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from markdown_it import MarkdownIt
from polling import PATIENCE
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.context import FlowRunContext

from flows.cards import loss_card, publish_cards
from flows.extend_context import extend_context
from flows.parameters import parameters_of
from flows.summary import RunSummary
from longrecipe_core.artifacts import ArtifactStore
from longrecipe_core.recipe import Recipe
from tasks.run import Run

CARDS = {"seconds-stages", "seconds-data", "seconds-loss", "seconds-evaluation"}


def artifacts(flow_run):
    """A flow run's artifacts by key, those of its task runs too."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [str(flow_run)]}}, "sort": "CREATED_DESC"}
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json=wanted).json()
    return {one["key"]: SimpleNamespace(**one) for one in found}


def run_flow(recipe, store):
    """Run the flow; returns its run's id."""
    state = extend_context(**parameters_of(recipe), store=str(store), return_state=True)
    return state.state_details.flow_run_id, state


@pytest.fixture(scope="module")
def remerged(first_run, recipe_file, tmp_path_factory):
    """A run that trains and evaluates again: annealing has another rate; its id and its store."""
    store = tmp_path_factory.mktemp("again") / "store"
    shutil.copytree(first_run[0], store)
    flow_run, state = run_flow(Recipe.load(recipe_file, ["anneal.learning_rate=2e-3"]), store)
    return flow_run, state.result(), store


def test_task_runs_have_readable_names(remerged):
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[remerged[0]])), limit=50, sort="NAME_ASC"
        )
    names = {run.name for run in runs}
    assert {"extend · seconds · 40→128", "anneal · seconds · 40", "merge · seconds · 0.5/0.5"} <= names


def test_progress_ends_at_the_last_step(remerged):
    found = artifacts(remerged[0])
    progress = found["seconds-anneal-progress"]
    assert (progress.type, progress.data) == ("progress", 100)
    assert re.fullmatch(r"step 4 of 4, loss \d\.\d{4}, [\d,]+ tokens/s", progress.description)
    assert found["seconds-evaluate-progress"].data == 100
    assert found["seconds-evaluate-progress"].description.startswith("model 5 of 5, stage 2, merged: NLL")
    assert "seconds-extend-progress" not in found  # a hit


def test_the_job_s_lines_are_in_the_run_s_log_and_progress_bars_are_not(remerged):
    with get_client(sync_client=True) as client:
        found = client.read_logs(log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=[remerged[0]])), limit=200)
    lines = [one.message for one in found]
    assert any(re.match(r"step 4/4 loss \d", line) for line in lines)
    assert not [line for line in lines if re.search(r"\d+%\||it/s", line)]


def test_cards_are_the_run_s_own_figures(remerged):
    flow_run, summary, _ = remerged
    found = artifacts(flow_run)
    assert set(found) >= CARDS
    assert "seconds-resume" not in found
    assert all(len(one.data) < 100_000 for one in found.values() if one.type == "markdown")

    page = MarkdownIt("commonmark").enable("table").render(found["seconds-stages"].data)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    stages = [cells[at : at + 5] for at in range(0, len(cells), 5)]
    assert [(row[0], row[1], row[4]) for row in stages] == [(o.stage, o.status, o.ref.uri) for o in summary.outcomes]

    # Twenty documents and eighty samples, by the recipe's fixture.
    data = found["seconds-data"].data
    assert re.findall("^### (.+)$", data, re.MULTILINE) == ["tokenize", "index", "replay"]
    assert "| documents, read | 20 |" in data
    assert "| samples, read | 80 |" in data

    losses = [json.loads(line) for line in (Path(summary.uri("anneal")) / "about" / "metrics.jsonl").open()]
    loss = found["seconds-loss"].data
    (png,) = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)\)", loss)
    assert base64.b64decode(png).startswith(b"\x89PNG")
    assert f"| anneal | 4 | {sum(row['tokens'] for row in losses):,} | {losses[0]['loss']:.4f} | " in loss
    assert [line.split(" | ")[0] for line in loss.splitlines()[-3:]] == ["| base", "| extend", "| anneal"]

    table = (Path(summary.uri("report")) / "evaluation.txt").read_text()
    assert table in found["seconds-evaluation"].data
    assert "data:image/png;base64," in found["seconds-evaluation"].data


def test_a_run_of_hits_has_all_cards_too(store, recipe_file):
    flow_run, state = run_flow(Recipe.load(recipe_file), store)
    assert {outcome.status for outcome in state.result().outcomes} == {"hit"}
    assert {key for key, one in artifacts(flow_run).items() if one.type == "markdown"} == CARDS


def test_a_failed_run_has_the_cards_of_what_was_done_and_the_command_that_resumes(store, recipe_file):
    recipe = Recipe.load(recipe_file, ["evaluation.buckets=2", "launch.gpu_limit=none-such"])
    flow_run, state = run_flow(recipe, store)
    assert state.is_failed()
    found = artifacts(flow_run)
    assert {"seconds-stages", "seconds-loss", "seconds-resume"} <= set(found)
    assert "seconds-evaluation" not in found
    assert "longrecipe run" in found["seconds-resume"].data


def test_loss_is_read_without_weights_and_from_a_remote_store(first_run):
    """Nothing of the checkpoints is there but what the card reads."""
    remote = fsspec.filesystem("memory")
    outcomes = []
    for outcome in first_run[1].outcomes:
        uri = f"memory://cards/{'/'.join(outcome.ref.uri.split('/')[-3:])}"
        path = Path(outcome.ref.uri) / "about" / "metrics.jsonl"
        if path.exists():
            remote.pipe_file(f"{uri}/about/metrics.jsonl", path.read_bytes())
        outcomes.append(outcome.model_copy(update={"ref": outcome.ref.model_copy(update={"uri": uri})}))
    summary = RunSummary(outcomes=outcomes)
    text = loss_card(None, ArtifactStore("memory://cards"), summary)
    assert re.findall(r"^\| (base|extend|anneal) \| 4 \|", text, re.MULTILINE) == ["base", "extend", "anneal"]


def test_a_card_that_can_t_be_made_costs_no_other(first_run, recipe_file, store, caplog):
    """The checkpoints' metrics are damaged; stages, data and evaluation are shown."""
    summary = first_run[1]
    moved = [
        outcome.model_copy(
            update={
                "ref": outcome.ref.model_copy(update={"uri": outcome.ref.uri.replace(str(first_run[0]), str(store))})
            }
        )
        for outcome in summary.outcomes
    ]
    for path in store.glob("checkpoint/*/*/about/metrics.jsonl"):
        path.write_text("not JSON\n")

    @flow(flow_run_name="damaged-card")
    def publish():
        run = Run(recipe=Recipe.load(recipe_file), store=str(store))
        publish_cards(run, RunSummary(outcomes=moved), None)
        return str(FlowRunContext.get().flow_run.id)

    assert set(artifacts(publish())) == CARDS - {"seconds-loss"}
    assert [r.message for r in caplog.records if "card loss could not be made: JSONDecodeError" in r.message]


def test_a_run_of_hits_publishes_without_torch_and_transformers(store, recipe_file, tmp_path):
    code = (
        "import sys\n"
        "from flows.extend_context import extend_context\n"
        "from flows.parameters import parameters_of\n"
        "from longrecipe_core.recipe import Recipe\n"
        f"summary = extend_context(**parameters_of(Recipe.load({str(recipe_file)!r})), store={str(store)!r})\n"
        "print({outcome.status for outcome in summary.outcomes})\n"
        "print('matplotlib' in sys.modules, sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    from prefect.settings import PREFECT_API_URL

    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=PATIENCE
    )
    assert done.stdout.splitlines()[-2:] == ["{'hit'}", "True []"], done.stderr[-3000:]
