"""The form of a deployment: what Prefect makes of a flow's signature, and what comes of it when it is sent."""

import fsspec
import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.evaluate_model import evaluate_model
from flows.extend_context import extend_context
from flows.merge_sweep import merge_sweep
from flows.parameters import build_run
from flows.prepare_data import prepare_data
from flows.retrain import retrain
from flows.train_stage import train_stage
from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe import Recipe

FLOWS = [extend_context, prepare_data, train_stage, merge_sweep, evaluate_model, retrain]


def schema_of(flow):
    return parameter_schema(flow).model_dump_for_openapi()


def accepted(flow, parameters):
    """As the server decides with enforce_parameter_schema."""
    try:
        validate(parameters, schema_of(flow), raise_on_error=True)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_field_has_its_help(flow):
    schema = schema_of(flow)
    forms = {"": schema, **schema["definitions"]}
    without = [
        f"{name}.{key}"
        for name, form in forms.items()
        for key, field in form["properties"].items()
        if not field.get("description")
    ]
    assert without == []
    assert set(Recipe.model_fields) <= set(schema["properties"])


def test_bounds_choices_and_defaults_are_in_the_form():
    schema = schema_of(extend_context)
    training = schema["definitions"]["TrainingSection"]
    assert training["properties"]["learning_rate"]["exclusiveMinimum"] == 0
    assert training["properties"]["schedule"]["enum"] == ["constant", "linear", "cosine"]
    assert training["properties"]["schedule"]["default"] == "constant"
    assert training["required"] == ["learning_rate"]
    assert schema["properties"]["seed"]["anyOf"][0] == {"type": "integer", "minimum": 0}
    assert "extend" in schema["properties"]["start_from"]["anyOf"][0]["enum"]
    assert "measure" not in schema["properties"]["start_from"]["anyOf"][0]["enum"]
    assert schema_of(train_stage)["required"] == ["stage"]
    assert "start_from" not in schema_of(train_stage)["properties"]


def test_a_bound_is_told_beside_its_number():
    schema = schema_of(extend_context)
    helps = schema["definitions"]["TrainingSection"]["properties"]
    assert helps["learning_rate"]["description"] == "peak learning rate (above 0)"
    assert helps["steps"]["description"].endswith("(at least 1)")
    assert helps["betas"]["description"] == "AdamW (at least 0, below 1)"
    assert schema["definitions"]["UpsamplingSection"]["properties"]["longer_than"]["description"].count("at least") == 1
    assert schema["properties"]["seed"]["description"] == "of every random draw (at least 0)"


def test_the_keys_of_a_group_have_their_names_and_order():
    # The page shows titles, and a key that has none as "Field"; without positions it shuffles them.
    for section in schema_of(extend_context)["definitions"].values():
        keys = list(section["properties"])
        assert [field["title"] for field in section["properties"].values()] == keys
        assert [field["position"] for field in section["properties"].values()] == list(range(len(keys)))


def test_the_server_takes_what_is_right_and_nothing_else():
    untouched = {name: field["default"] for name, field in schema_of(extend_context)["properties"].items()}
    assert accepted(extend_context, untouched | {"recipe": "recipes/tiny-cpu.yaml"})
    assert accepted(extend_context, {"recipe": "x.yaml", "rope": {"type": "yarn", "theta": None, "factor": 4}})
    assert not accepted(extend_context, {"recipe": "x.yaml", "rope": {"type": "no-such"}})
    assert not accepted(extend_context, {"recipe": "x.yaml", "rope": {"kind": "ntk"}})
    assert not accepted(extend_context, {"recipe": "x.yaml", "force": ["no-such-stage"]})
    assert not accepted(train_stage, {"recipe": "x.yaml"})
    assert accepted(train_stage, {"recipe": "x.yaml", "stage": "anneal"})
    assert accepted(merge_sweep, {"recipe": "x.yaml", "base_weights": [0, 0.5, 1]})
    assert not accepted(merge_sweep, {"recipe": "x.yaml", "base_weights": [1.5]})


def test_a_run_of_groups_only_is_that_of_the_file(recipe_file):
    tree = yaml.safe_load(recipe_file.read_text())
    assert accepted(extend_context, tree)
    validated = extend_context.validate_parameters({**dict.fromkeys(Recipe.model_fields), **tree})
    assert build_run(validated).recipe == Recipe.load(recipe_file)


def test_a_group_replaces_that_of_the_file_and_overrides_come_last(recipe_file):
    run = build_run(
        {"recipe": str(recipe_file), "merge": {"base_weight": 0.2, "trained_weight": 0.8}, "overrides": ["seed=7"]}
    )
    expected = Recipe.load(recipe_file, ["merge.base_weight=0.2", "merge.trained_weight=0.8", "seed=7"])
    assert run.recipe == expected


def test_a_recipe_by_url(recipe_file):
    fsspec.filesystem("memory").pipe_file("/test-parameters/recipe.yaml", recipe_file.read_bytes())
    assert build_run({"recipe": "memory://test-parameters/recipe.yaml"}).recipe == Recipe.load(recipe_file)
    with pytest.raises(RecipeError, match=r"memory://nothing-there\.yaml: can't be read"):
        build_run({"recipe": "memory://nothing-there.yaml"})
    with pytest.raises(RecipeError, match="credentials don't belong in a URL") as refused:
        build_run({"recipe": "s3://user:word-of-mouth@bucket/recipe.yaml"})
    assert "word-of-mouth" not in str(refused.value)


def test_the_store_is_the_environment_s_when_it_is_not_given(recipe_file, monkeypatch):
    monkeypatch.setenv("LONGRECIPE_STORE", "memory://ours")
    assert build_run({"recipe": str(recipe_file), "store": None}).store == "memory://ours"
    assert build_run({"recipe": str(recipe_file), "store": "elsewhere"}).store == "elsewhere"
    monkeypatch.delenv("LONGRECIPE_STORE")
    assert build_run({"recipe": str(recipe_file)}).store == "./artifacts"


def test_what_is_missing_is_told_before_anything_runs(recipe_file):
    with pytest.raises(RecipeError, match=r"corpus\.sources\.0\.path: no file at /no/such"):
        build_run({"recipe": str(recipe_file), "overrides": ["corpus.sources.0.path=/no/such"]})
