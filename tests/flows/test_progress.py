"""Progress artifacts where the server comes and goes."""

import json
from types import SimpleNamespace

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.context import SyncClientContext
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from longrecipe_core.recipe import Recipe
from tasks.progress import Progress, training_progress
from tasks.stages import STAGES

GONE = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}  # nobody listens on port 9


@pytest.fixture
def work(recipe_file):
    """As much of a stage's work as progress needs, and its log."""
    recipe, lines = Recipe.load(recipe_file, ["name=progress-only"]), []
    return SimpleNamespace(run=SimpleNamespace(recipe=recipe), stage=STAGES["extend"], log=lines.append), lines


def shown():
    """What the server has: percent and line of each progress artifact, oldest first."""
    wanted = {"artifacts": {"key": {"any_": ["progress-only-extend-progress"]}}, "sort": "CREATED_DESC"}
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json=wanted).json()
    return [(one["data"], one["description"]) for one in reversed(found)]


def test_a_server_that_is_gone_is_told_once_and_shown_to_again_when_it_is_back(prefect_api, work):
    one, lines = work

    @task
    def job():
        SyncClientContext.__var__.set(None)  # the run's own client knows its server already
        progress = Progress(one)
        with temporary_settings(GONE):
            progress.show(10, "step 1 of 10")
            progress.show(20, "step 2 of 10")
        progress.show(30, "step 3 of 10")
        progress.show(40, "step 4 of 10")

    flow(job)()
    (line,) = lines
    assert line.startswith("extend: its progress can't be shown for now: ConnectError")
    assert shown() == [(40, "step 4 of 10")]


def test_the_last_step_is_shown_also_of_a_job_that_is_over_at_once(prefect_api, work, tmp_path):
    one, lines = work
    before = shown()
    row = {"step": 5, "steps": 5, "tokens": 10, "loss": 1.5, "seconds": 2.0}

    @task
    def job():
        with training_progress(one, tmp_path / "metrics.jsonl"):
            (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")

    flow(job)()
    assert lines == []
    assert shown() == [*before, (100, "step 5 of 5, loss 1.5000, 5 tokens/s")]
    with training_progress(one, tmp_path / "metrics.jsonl"):
        pass  # outside of a run nothing is shown
    assert len(shown()) == len(before) + 1
