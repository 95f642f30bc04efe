"""Each deployment's own module has its runs go on without their place in the limit: a process may load no other."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
CALLED = {"outlive_lost_leases", "recipe_parameters"}  # the second calls the first


@pytest.mark.parametrize("entrypoint", [one["entrypoint"] for one in DEPLOYMENTS])
def test_the_module_of_a_deployment_sees_to_it(entrypoint):
    module = ast.parse((ROOT / entrypoint.partition(":")[0]).read_text())
    used = {node.id for statement in module.body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    assert used & CALLED
