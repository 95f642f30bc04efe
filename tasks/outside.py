"""What comes from outside the store: sources and a pretrained model, known by their content."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, fingerprint
from longrecipe_core.recipe import Recipe
from tasks.run import Run, sources_reference


@task(name="inputs", cache_policy=NO_CACHE)
def inputs(run: Run) -> dict[str, ArtifactRef]:
    """See `look_outside`."""
    return look_outside(run.recipe, run.open_store())


def look_outside(recipe: Recipe, store: ArtifactStore) -> dict[str, ArtifactRef]:
    """References to `corpus`, `replay_sources` and, where the recipe takes one, the pretrained `base`.

    Files are read once and remembered by size and times; hub ids by their commit.
    """
    found = {
        "corpus": sources_reference(recipe.corpus.sources, store),
        "replay_sources": sources_reference(recipe.replay.sources, store),
    }
    if recipe.model is not None:
        # Imports the hub's client, which a recipe that trains its own base has no need of.
        from longrecipe_core.modeling.source import model_identity

        identity = model_identity(
            recipe.model.path, recipe.model.revision, store.digests, recipe.model.trust_remote_code
        )
        # Of a hub model the commit goes along: it, and no newer one, is what every stage then reads.
        commit = identity.removeprefix("commit:") if identity.startswith("commit:") else None
        uri = f"{recipe.model.path}@{commit}" if commit else recipe.model.path
        found["base"] = ArtifactRef(uri=uri, kind="outside", fingerprint=fingerprint(identity))
    return found
