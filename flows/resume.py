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
    run of the whole recipe, started here, is run again as it was; a recipe that came in groups is read from the store,
    where the resolved one lies beside the run's record.
    """
    context = FlowRunContext.get()
    if context and context.flow_run and context.flow_run.deployment_id:
        return f"prefect flow-run retry {context.flow_run.id}"
    if flow_name != "extend-context":
        return None
    return shlex.join(command_line(run, (context and context.parameters) or {}))


def command_line(run: Run, parameters: Mapping[str, Any]) -> list[str]:
    """`longrecipe run` with the arguments that give this run; `parameters` are the flow's."""
    store = run.open_store()
    recipe, overrides = parameters.get("recipe"), parameters.get("overrides") or []
    if recipe is None or any(parameters.get(name) is not None for name in Recipe.model_fields):
        recipe, overrides = RunRecords(store).recipe_place(run.id).uri, []
    words = [_program(), "run", str(recipe)]
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


def _program() -> str:
    """`longrecipe` as it was called, else as it is installed beside this Python."""
    if Path(sys.argv[0]).name == "longrecipe":
        return sys.argv[0]
    beside = Path(sys.executable).with_name("longrecipe")
    return str(beside) if beside.exists() else "longrecipe"
