"""What a flow that runs a recipe is asked for: a file and overrides, the recipe's own groups, and how to go on."""

import functools
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, TypeVar

from prefect.context import FlowRunContext
from pydantic import Field, TypeAdapter

from flows.form import ForPeople, with_bounds
from flows.lost_lease import outlive_lost_leases
from longrecipe_core.cost.heads import check_recipe
from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe import Recipe
from tasks import names
from tasks.run import Run
from tasks.stages import OF_NO_RECIPE, STAGES

Result = TypeVar("Result")

# Choices in the form, which the server holds to; a run that is started otherwise is told by the run itself.
StageName = Annotated[str, Field(json_schema_extra={"enum": [name for name in STAGES if name not in OF_NO_RECIPE]})]

FILE_PARAMETERS: dict[str, tuple[Any, Any, str]] = {
    "recipe": (
        str | None,
        None,
        "file or fsspec URL of a recipe; relative to the code, such as recipes/tiny-cpu.yaml. A group that is given "
        "below replaces the file's whole group; for single keys, take overrides",
    ),
    "overrides": (list[str], [], "changes of single keys as section.key=value, one each, made last"),
}
RUN_PARAMETERS: dict[str, tuple[Any, Any, str]] = {
    "store": (
        str | None,
        None,
        "where artifacts are kept: a directory or any fsspec URL; LONGRECIPE_STORE of the worker when not given, else "
        "./artifacts",
    ),
    "start_from": (
        StageName | None,
        None,
        "the first stage that may be computed; those before it must be in the store",
    ),
    "force": (list[StageName], [], "stages that are made again although they are in the store"),
    "adopt": (dict[str, str], {}, "stage: URI of a checkpoint that is taken as that stage's result"),
}


def recipe_parameters(function: Callable[..., Result], leave_out: Collection[str] = ()) -> Callable[..., Result]:
    """Give a flow `f(run, ...)` the parameters that build its `Run`; its own others come first.

    Prefect makes the form of a deployment from the signature, and a parameter's help from `Args:`, the docstring's end.

    Args:
        function: The flow's function.
        leave_out: Parameters of `RUN_PARAMETERS` that the flow sets itself.
    """
    outlive_lost_leases()  # here, since the process that runs a flow has just made it
    own = [parameter for name, parameter in inspect.signature(function).parameters.items() if name != "run"]
    choices = {name: asked for name, asked in RUN_PARAMETERS.items() if name not in leave_out}
    asked = FILE_PARAMETERS | _groups() | choices

    def with_run(**given: Any) -> Result:
        mine = {parameter.name: given.pop(parameter.name) for parameter in own if parameter.name in given}
        return function(run=build_run(given), **mine)

    functools.update_wrapper(with_run, function)
    del with_run.__wrapped__  # type: ignore[attr-defined]  # else its signature would be shown
    with_run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        + [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default, _) in asked.items()
        ]
    )
    text = inspect.cleandoc(function.__doc__ or "")
    helps = "".join(f"    {name}: {text}\n" for name, (_, _, text) in asked.items())
    with_run.__doc__ = f"{text}\n{helps}" if "\nArgs:\n" in text else f"{text}\n\nArgs:\n{helps}"
    return with_run


def build_run(given: Mapping[str, Any]) -> Run:
    """The `Run` of a flow's parameters.

    Raises:
        RecipeError: One line per problem of the recipe, also those that only a look at its files tells.
    """
    choices = {name: given[name] for name in RUN_PARAMETERS if name in given}
    recipe = _recipe(given)
    check_recipe(recipe)
    choices["store"] = choices.get("store") or default_store()
    return Run(recipe=recipe, **choices)


def run_name() -> str:
    """Of the flow run that begins, for `flow(flow_run_name=...)`; one whose recipe is wrong keeps Prefect's name."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    try:
        return names.flow_run_name(_recipe(context.parameters or {}))
    except RecipeError:
        return str(context.flow_run.name)


def default_store() -> str:
    """Where artifacts are kept when nobody says."""
    return os.environ.get("LONGRECIPE_STORE") or "./artifacts"


def parameters_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a flow's parameters."""
    return {name: value for name in Recipe.model_fields if (value := getattr(recipe, name)) is not None}


def _recipe(given: Mapping[str, Any]) -> Recipe:
    groups = {name: given[name] for name in Recipe.model_fields if given.get(name) is not None}
    return Recipe.assemble(given.get("recipe"), groups, given.get("overrides") or ())


def _groups() -> dict[str, tuple[Any, Any, str]]:
    """The recipe's groups, none of which need be given; the bounds of a single value stay with its type."""
    groups = {}
    for name, field in Recipe.model_fields.items():
        annotation: Any = field.annotation
        annotation = Annotated[annotation, *field.metadata, ForPeople()] | None
        text = field.description or _first_line(field.annotation)
        groups[name] = (annotation, None, with_bounds(text, TypeAdapter(annotation).json_schema()))
    return groups


def _first_line(annotation: Any) -> str:
    """Of a section's docstring."""
    return (inspect.getdoc(annotation) or "").partition("\n")[0]
