"""What is told of a recipe before anything runs; query heads also of a model that is not here yet."""

from longrecipe_core.cost.shapes import shape_of_model
from longrecipe_core.errors import ModelError, RecipeError
from longrecipe_core.recipe import Recipe, check_inputs


def check_recipe(recipe: Recipe) -> None:
    """All that can be told by looking: see `check_inputs` and `check_known_heads`.

    Raises:
        RecipeError: One line per problem.
    """
    check_inputs(recipe)
    check_known_heads(recipe)


def check_known_heads(recipe: Recipe) -> None:
    """Raise RecipeError where `launch.parallel` can't split the heads of a hub model whose shape is known here.

    Nothing is downloaded: what neither the local cache nor the table tells is told by the first training stage.
    """
    if recipe.model is None:
        return
    try:
        heads = shape_of_model(recipe.model).query_heads
    except ModelError:
        return
    try:
        recipe.check_heads(heads, recipe.model.path)
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name}: {error}") from error
