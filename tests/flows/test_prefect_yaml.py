"""prefect.yaml as Prefect reads it."""

from pathlib import Path

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from deployments.names import WORK_POOL
from longrecipe_core.recipe import Recipe
from longrecipe_core.recipe.comparison import Comparison

ROOT = Path(__file__).parents[2]
NAMES = [
    "extend-context",
    "prepare-data",
    "train-stage",
    "merge-sweep",
    "evaluate-model",
    "retrain",
    "compare",
    "publish",
]


@pytest.fixture(scope="module")
def document():
    return PrefectYamlModel.model_validate(yaml.safe_load((ROOT / "prefect.yaml").read_text()))


def test_each_deployment_says_where_how_and_what(document):
    assert [deployment.name for deployment in document.deployments] == NAMES
    assert document.pull == [{"deployments.code.pull": {}}]
    for deployment in document.deployments:
        assert deployment.work_pool.name == WORK_POOL
        assert deployment.work_pool.job_variables["env"]["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert int(deployment.work_pool.job_variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) >= 30
        assert deployment.concurrency_limit.collision_strategy == "ENQUEUE"
        assert "longrecipe" in deployment.tags
        assert deployment.description


def test_only_retrain_is_scheduled_and_sleeps(document):
    schedules = {deployment.name: deployment.schedules for deployment in document.deployments if deployment.schedules}
    assert list(schedules) == ["retrain"]
    (weekly,) = schedules["retrain"]
    assert weekly.cron == "0 3 * * 0"
    assert weekly.active is False


def test_what_is_filled_in_fits_the_form(document, monkeypatch):
    monkeypatch.chdir(ROOT)
    for deployment in document.deployments:
        flow = load_flow_from_entrypoint(deployment.entrypoint)
        assert flow.name == deployment.name
        schema = parameter_schema(flow).model_dump_for_openapi()
        # What is still missing, such as a checkpoint, only the person who runs it knows.
        assert validate(deployment.parameters, schema, ignore_required=True) == []
        if "comparison" in deployment.parameters:
            Comparison.load(deployment.parameters["comparison"])
        else:
            Recipe.load(deployment.parameters["recipe"])
