"""What comes from outside the store: sources and a pretrained model, known by their content."""

import contextlib
import os

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, fingerprint
from longrecipe_core.errors import ArtifactMissingError
from longrecipe_core.recipe import ModelSection, Recipe
from tasks.other_models import other_models
from tasks.run import Run, benchmarks_reference, sources_reference
from tasks.stage_task import stage_task


@stage_task("inputs")
def inputs(run: Run) -> dict[str, ArtifactRef]:
    """See `look_outside`."""
    return look_outside(run.recipe, run.open_store())


def look_outside(recipe: Recipe, store: ArtifactStore) -> dict[str, ArtifactRef]:
    """References to `corpus`, `replay_sources` and, where the recipe takes one, a pretrained `base`, a `score_model`,
    `benchmarks` of its own, and the other models of its evaluation.

    Files are read once and remembered by size and times; hub ids by their commit.
    """
    found = {
        "corpus": sources_reference(recipe.corpus.sources, store),
        "replay_sources": sources_reference(recipe.replay.sources, store),
    }
    models = {"base": recipe.model, "score_model": recipe.score.model if recipe.score else None}
    for name, model in models.items():
        if model is not None:
            found[name] = _model_reference(model, store)
    return found | benchmarks_reference(recipe) | other_references(recipe, store)


def other_references(recipe: Recipe, store: ArtifactStore) -> dict[str, ArtifactRef]:
    """References to the models of `evaluation.models` that have a path of their own, as `checkpoint_reference`."""
    trust = bool(recipe.model and recipe.model.trust_remote_code)
    return {
        name: _checkpoint_reference(model.path, model.revision, trust, store)
        for name, model in other_models(recipe).items()
        if model.path is not None
    }


def checkpoint_reference(run: Run, checkpoint: str) -> ArtifactRef:
    """A model that a person names: a directory, fsspec URL or hub id, known by its content; or an artifact's URI.

    Raises:
        ModelError: There is no model, or it can't be reached.
        StoreError: A URL that holds credentials.
    """
    trust = bool(run.recipe.model and run.recipe.model.trust_remote_code)
    return _checkpoint_reference(checkpoint, None, trust, run.open_store())


def _checkpoint_reference(checkpoint: str, revision: str | None, trust: bool, store: ArtifactStore) -> ArtifactRef:
    uri = os.path.abspath(checkpoint) if os.path.isdir(checkpoint) else checkpoint.rstrip("/")
    with contextlib.suppress(ArtifactMissingError):
        ref = store.ref(store.manifest_of(uri))
        if ref.kind == "checkpoint":
            return ref
    return _model_reference(ModelSection(path=checkpoint, revision=revision, trust_remote_code=trust), store)


def _model_reference(model: ModelSection, store: ArtifactStore) -> ArtifactRef:
    # Imports the hub's client, which a recipe that trains its own base has no need of.
    from longrecipe_core.modeling.source import model_identity

    identity = model_identity(model.path, model.revision, store.digests, model.trust_remote_code)
    # Of a hub model the commit goes along: it, and no newer one, is what every stage then reads.
    commit = identity.removeprefix("commit:") if identity.startswith("commit:") else None
    uri = f"{model.path}@{commit}" if commit else model.path
    return ArtifactRef(uri=uri, kind="outside", fingerprint=fingerprint(identity))
