"""A stage in a real flow: tried again after its storage failed, not after its job ran out of memory."""

import errno
import sys
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from longrecipe_core.errors import LaunchError
from longrecipe_core.launching.supervised import run_supervised
from longrecipe_core.recipe import Recipe
from tasks.corpus import replay
from tasks.outside import inputs
from tasks.run import Run
from tasks.stage_task import stage_task


class FailingOnce(MemoryFileSystem):
    """A store whose first upload fails as a network file system's does."""

    protocol = "failing-once"
    failures = 1

    def put_file(self, *arguments, **options):
        if FailingOnce.failures:
            FailingOnce.failures -= 1
            raise OSError(errno.EIO, "Input/output error")
        return super().put_file(*arguments, **options)


@pytest.fixture
def run(first_run, recipe_file, tmp_path, monkeypatch):
    """A run with the first run's base model for a pretrained one."""
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    fsspec.register_implementation("failing-once", FailingOnce, clobber=True)
    base = next(Path(one.ref.uri) for one in first_run[1].outcomes if one.stage == "base")
    recipe = Recipe.load(recipe_file, ["base=null", f"model={{path: {base}}}", "launch.workers=1"])
    return Run(recipe=recipe, store="failing-once://store")


def starts(name):
    """How often the only task of each stage of a flow run was started."""
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])), limit=20, sort="NAME_ASC"
        )
    return {one.name.split(" · ")[0]: (one.run_count, one.state_name) for one in runs}


def test_a_stage_whose_storage_failed_once_succeeds_at_the_second_try(prefect_api, run):
    @flow(flow_run_name="storage-fails")
    def flow_of_replay():
        outside = inputs(run)
        return replay.with_options(retry_delay_seconds=0)(run, outside["base"], outside["replay_sources"])

    outcome = flow_of_replay()
    assert FailingOnce.failures == 0
    assert outcome.status == "ran"
    assert run.open_store().verify(outcome.ref) == []
    assert starts("storage-fails") == {"inputs": (1, "Completed"), "replay": (2, "Completed")}


HUNGRY = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28)); bytes(2**30)"


def test_a_job_that_ran_out_of_memory_is_not_tried_again(prefect_api, run):
    @stage_task("extend")
    def extend(run: Run) -> None:
        run_supervised("training job", [sys.executable, "-c", HUNGRY], lambda line: None)

    @flow(flow_run_name="memory-ends")
    def flow_of_extend():
        extend(run)

    with pytest.raises(LaunchError, match="MemoryError"):
        flow_of_extend()
    assert starts("memory-ends") == {"extend": (1, "Failed")}
