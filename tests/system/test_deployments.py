"""The deployments on a real server, with a real worker: deployed from a clean clone, asked for as the UI asks."""

import json
import subprocess
import sys
import urllib.error

import pytest
import yaml
from prefect_servers import ROOT

NAMES = {one["name"] for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    place = tmp_path_factory.mktemp("clean") / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, place], check=True)
    return place


@pytest.fixture(scope="module")
def deployed(site, clone):
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=clone, env=site.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {one["name"]: one for one in site.server.post("/deployments/filter", {})}


def form_of(deployment):
    """What the UI sends of a form that nobody has touched."""
    defaults = {
        name: field.get("default") for name, field in deployment["parameter_openapi_schema"]["properties"].items()
    }
    return defaults | deployment["parameters"]


def start(site, deployment, **parameters):
    body = {"parameters": form_of(deployment) | parameters}
    return site.server.post(f"/deployments/{deployment['id']}/create_flow_run", body)


def test_deploy_all_in_a_clean_clone(site, clone, deployed):
    assert set(deployed) == NAMES
    for one in deployed.values():
        assert one["pull_steps"] == [{"deployments.code.pull": {}}]
        assert str(clone) not in json.dumps(one)
        assert one["work_pool_name"] == "longrecipe"
        assert one["enforce_parameter_schema"] is True
        assert one["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    (schedule,) = deployed["retrain"]["schedules"]
    assert schedule["active"] is False


def test_set_up_again_changes_nothing(site):
    command = [sys.executable, "-m", "deployments.set_up"]
    done = subprocess.run(command, cwd=ROOT, env=site.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("notifications: none")]
    assert len(lines) >= 4
    assert all("there already" in line for line in lines), done.stdout
    assert site.server.get("/v2/concurrency_limits/gpu")["limit"] >= 1


def test_an_untouched_form_with_a_recipe_runs(site, deployed, tmp_path):
    run = start(site, deployed["prepare-data"], recipe=str(site.recipe), store=str(tmp_path / "store"))
    site.wait_for_state(run["id"], "Completed", "Failed", "Crashed")
    finished = site.server.get(f"/flow_runs/{run['id']}")
    assert finished["state"]["name"] == "Completed", site.logs(run["id"])
    assert finished["name"] == "interrupted · 40→128"
    assert len(list((tmp_path / "store").glob("*/*/manifest.json"))) == 4  # base, tokens, index, replay
    kept = [path.read_text() for path in (site.directory / "longrecipe_store" / "results").iterdir()]
    assert sum(str(tmp_path) in text and "tokenize" in text for text in kept) == 1  # the flow's result, and no task's

    # One more stage, as another deployment of the same store.
    run = start(site, deployed["train-stage"], recipe=str(site.recipe), store=str(tmp_path / "store"), stage="extend")
    site.wait_for_state(run["id"], "Completed", "Failed", "Crashed")
    assert site.state(run["id"]) == "Completed", site.logs(run["id"])
    assert len(list((tmp_path / "store").glob("*/*/manifest.json"))) == 5


def test_the_server_refuses_what_the_form_does_not_allow(site, deployed):
    for wrong in ({"merge": {"base_weight": "much"}}, {"seed": -1}, {"force": ["everything"]}, {"rope": {"type": "x"}}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            start(site, deployed["extend-context"], **wrong)
        assert refused.value.code in (409, 422), wrong


def test_a_wrong_recipe_fails_at_once_in_one_line(site, deployed, tmp_path):
    run = start(
        site,
        deployed["extend-context"],
        recipe=str(site.recipe),
        store=str(tmp_path),
        overrides=["corpus.sources.0.path=/no/such/place"],
    )
    site.wait_for_state(run["id"], "Failed", "Completed", "Crashed")
    message = site.server.get(f"/flow_runs/{run['id']}")["state"]["message"]
    assert "corpus.sources.0.path: no file at /no/such/place" in message
