"""What a flow that runs a recipe is asked for: a file and overrides, the recipe's own groups, and how to go on."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from longrecipe_core.recipe import Recipe
from tasks.run import Run

Result = TypeVar("Result")

RUN_PARAMETERS: dict[str, tuple[Any, Any, str]] = {
    "store": (str, "artifacts", "where artifacts are kept: a directory or any fsspec URL"),
    "start_from": (str | None, None, "the first stage that may be computed; those before it must be in the store"),
    "force": (list[str], [], "stages that are made again although they are in the store"),
    "adopt": (dict[str, str], {}, "stage: URI of a checkpoint that is taken as that stage's result"),
}
FILE_PARAMETERS: dict[str, tuple[Any, Any, str]] = {
    "recipe": (str | None, None, "file or fsspec URL of a recipe; groups given below replace those of the file"),
    "overrides": (list[str], [], "changes as section.key=value, one each, made last"),
}


def recipe_parameters(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a flow `f(run, ...)` the parameters that build its `Run`; its own others come first.

    Prefect makes the form of a deployment from the signature, and a parameter's help from `Args:` in the docstring.
    """
    own = [parameter for name, parameter in inspect.signature(function).parameters.items() if name != "run"]
    groups = {
        name: (field.annotation, None, field.description or _first_line(field.annotation))
        for name, field in Recipe.model_fields.items()
    }
    asked = FILE_PARAMETERS | groups | RUN_PARAMETERS

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
    helps = "".join(f"    {name}: {text}\n" for name, (_, _, text) in asked.items())
    with_run.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nArgs:\n{helps}"
    return with_run


def build_run(given: Mapping[str, Any]) -> Run:
    """The `Run` of a flow's parameters.

    Raises:
        RecipeError: One line per problem of the recipe.
    """
    choices = {name: given[name] for name in RUN_PARAMETERS if name in given}
    groups = {name: given[name] for name in Recipe.model_fields if given.get(name) is not None}
    recipe = Recipe.assemble(given.get("recipe"), groups, given.get("overrides") or ())
    return Run(recipe=recipe, **choices)


def parameters_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a flow's parameters."""
    return {name: value for name in Recipe.model_fields if (value := getattr(recipe, name)) is not None}


def _first_line(annotation: Any) -> str:
    """Of a section's docstring."""
    return (inspect.getdoc(annotation) or "").partition("\n")[0]
