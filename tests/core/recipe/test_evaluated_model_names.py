"""Which models an evaluation may be asked to measure."""

import pytest
from all_keys import BASE, one_line

from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe import OWN_MODELS, Recipe, check_inputs


@pytest.mark.parametrize(
    ("models", "fragment"),
    [
        *(
            (f"[{{name: '{name}', path: x}}]", f"'{name}' is what a model of the run itself")
            for name in ("base", "rope", "base, RoPE change only", "stage 2, merged", "merge")
        ),
        ("[{name: a, path: x}, {name: b, path: y}, {name: a, path: z}]", "two are called 'a'"),
        ("[{name: a}]", "model 'a' is the base model as it is"),
        ("[{name: a, rope: {type: yarn}, revision: main}]", "model 'a': revision main has no meaning without a path"),
        ("[{path: x}]", "evaluation.models.0.name: missing"),
        ("[]", "evaluation.models: [] is not allowed"),
    ],
)
def test_other_models_are_told_apart_in_one_line(models, fragment):
    assert fragment in one_line(BASE, f"evaluation.models={models}")


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        (["evaluation.stages=[base, merge, base]"], "stages: base stands twice"),
        (["evaluation.stages=[]"], "evaluation.stages: [] is not allowed"),
        (["evaluation.stages=[index]"], "evaluation.stages.0: 'index' is not allowed"),
        (["evaluation.stages=[base, rope]", "rope={type: none}"], "but rope.type is none"),
    ],
)
def test_stages_are_those_that_make_a_model(overrides, fragment):
    assert fragment in one_line(BASE, *overrides)


def test_every_own_model_may_be_asked_for():
    recipe = Recipe.parse(BASE, [f"evaluation.stages=[{', '.join(OWN_MODELS)}]"])
    assert recipe.evaluation.stages == ("base", "rope", "extend", "anneal", "merge")


def test_a_directory_that_is_not_there_is_told_before_anything_runs():
    recipe = Recipe.parse(BASE, ["evaluation.models=[{name: a, path: some/model}, {name: b, path: /nowhere/b}]"])
    with pytest.raises(RecipeError) as caught:
        check_inputs(recipe)
    (line,) = [line for line in str(caught.value).splitlines() if "evaluation.models" in line]
    assert line.endswith("evaluation.models.1.path: /nowhere/b is not a directory")
