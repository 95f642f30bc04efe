"""The command that resumes a run."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext

from longrecipe_core.artifacts import RunRecords
from longrecipe_core.recipe import Recipe
from tasks.run import Run


def resume_command(run: Run, flow_name: str) -> str | None:
    """A shell command that goes on where the run ended, or None where only calling the flow again does.

    A run of a deployment is retried by Prefect, with its parameters and on its workers, as `Retry` in the UI does. A
    run of the whole recipe, of one evaluation, of a sweep or of a comparison, started here, is run again as it was; a
    recipe that came in groups is read from the store, where the resolved one lies beside the run's record.
    """
    context = FlowRunContext.get()
    if context and context.flow_run and context.flow_run.deployment_id:
        return f"prefect flow-run retry {context.flow_run.id}"
    parameters = (context and context.parameters) or {}
    if flow_name == "compare" and parameters:
        return shlex.join(comparison_line(run, parameters))
    if flow_name == "evaluate-model" and parameters:
        return shlex.join(evaluation_line(run, parameters))
    if flow_name == "merge-sweep" and parameters and not (run.force or run.adopt):
        return shlex.join(sweep_line(run, parameters))
    if flow_name != "extend-context":
        return None
    return shlex.join(command_line(run, parameters))


def evaluation_line(run: Run, parameters: Mapping[str, Any]) -> list[str]:
    """`longrecipe evaluate` with the flow's parameters."""
    recipe, overrides = _recipe_of(run, parameters)
    words = [_program(), "evaluate", recipe, parameters["checkpoint"]]
    for override in overrides:
        words += ["--set", override]
    return [*words, "--store", run.open_store().root]


def sweep_line(run: Run, parameters: Mapping[str, Any]) -> list[str]:
    """`longrecipe merge-sweep` with the flow's parameters."""
    recipe, overrides = _recipe_of(run, parameters)
    words = [_program(), "merge-sweep", recipe]
    for override in overrides:
        words += ["--set", override]
    words += ["--store", run.open_store().root]
    if parameters.get("base_weights"):
        words += ["--weights", *(repr(float(weight)).removesuffix(".0") for weight in parameters["base_weights"])]
    return words


def comparison_line(run: Run, parameters: Mapping[str, Any]) -> list[str]:
    """`longrecipe compare` with the flow's parameters."""
    words = [_program(), "compare", str(parameters["comparison"])]
    for override in parameters.get("overrides") or []:
        words += ["--set", override]
    words += ["--store", run.open_store().root]
    if parameters.get("output"):
        words += ["--output", parameters["output"]]
    return words


def command_line(run: Run, parameters: Mapping[str, Any]) -> list[str]:
    """`longrecipe run` with the arguments that give this run; `parameters` are the flow's."""
    store = run.open_store()
    recipe, overrides = _recipe_of(run, parameters)
    words = [_program(), "run", recipe]
    for override in overrides:
        words += ["--set", override]
    words += ["--store", store.root]
    if run.start_from:
        words += ["--start-from", run.start_from]
    for stage in run.force:
        words += ["--force", stage]
    for stage, uri in run.adopt.items():
        words += ["--adopt", f"{stage}={uri}"]
    return words


def _recipe_of(run: Run, parameters: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Where the run's recipe can be read, and what must be changed in it."""
    recipe, overrides = parameters.get("recipe"), parameters.get("overrides") or []
    if recipe is None or any(parameters.get(name) is not None for name in Recipe.model_fields):
        return RunRecords(run.open_store()).recipe_place(run.id).uri, []
    return str(recipe), overrides


def _program() -> str:
    """`longrecipe` as it was called, else as it is installed beside this Python."""
    if Path(sys.argv[0]).name == "longrecipe":
        return sys.argv[0]
    beside = Path(sys.executable).with_name("longrecipe")
    return str(beside) if beside.exists() else "longrecipe"
