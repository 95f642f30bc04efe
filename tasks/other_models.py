"""Models that an evaluation measures beside the run's own: inputs from outside, with the base model's vocabulary."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from longrecipe_core.artifacts import ArtifactRef
from longrecipe_core.errors import ArtifactDamagedError, ModelError
from longrecipe_core.recipe import OtherModelSection, Recipe

if TYPE_CHECKING:
    from tasks.run import Work


def other_models(recipe: Recipe) -> dict[str, OtherModelSection]:
    """Those with a path of their own, by their names as inputs of stage `evaluate`."""
    models = recipe.evaluation.models or ()
    return {f"evaluation.models.{model.name}": model for model in models if model.path is not None}


def check_vocabularies(work: "Work", others: Mapping[str, ArtifactRef]) -> None:
    """Raise EvaluationError where one of them gives the base model's tokens other ids."""
    from longrecipe_core.evaluation.same_vocabulary import check_vocabulary
    from tasks.run import fetch_input

    for name, ref in others.items():
        directory = fetch_input(work.run, work.store, name, ref)
        check_vocabulary(work.fetch("base"), directory, f"{name}: {ref.uri}", _trust(work))


def check_measured(work: "Work") -> None:
    """Raise EvaluationError where stage `measure` was given a model that reads the documents' tokens otherwise.

    They were made with the tokenizer of the base model that the manifest of `tokenize` names. Where that can't be had
    any more, nothing is told.
    """
    from longrecipe_core.evaluation.same_vocabulary import check_vocabulary
    from tasks.run import fetch_input

    store = work.store
    base = next((one for one in store.manifest_of(work.inputs["tokenize"]).inputs if one.name == "base"), None)
    if base is None:  # early manifests tell no names
        return
    ref = ArtifactRef(uri=base.uri, kind=base.kind, fingerprint=base.fingerprint)
    if base.kind != "outside":  # by its key: a store may have been moved
        manifest = store.find(base.kind, base.fingerprint)
        if manifest is None:
            return
        ref = store.ref(manifest)
    try:
        directory = fetch_input(work.run, store, "base", ref)
    except (ModelError, ArtifactDamagedError) as error:
        work.log(f"whether {work.inputs['model'].uri} has the documents' vocabulary can't be told: {error}")
        return
    check_vocabulary(directory, work.fetch("model"), work.inputs["model"].uri, _trust(work))


def _trust(work: "Work") -> bool:
    return bool(work.run.recipe.model and work.run.recipe.model.trust_remote_code)
