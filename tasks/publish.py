"""Publishing: no stage of a recipe, since it makes nothing that another stage takes; only who asks for it gets it."""

import os
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, Manifest
from longrecipe_core.errors import PublishError
from longrecipe_core.publishing import Published, check_target, model_files, publish_files
from longrecipe_core.recipe import Recipe
from tasks.outside import look_outside
from tasks.retries import RETRY_DELAYS
from tasks.run import Log, run_log
from tasks.stage_task import may_succeed
from tasks.stages import stage_keys


@task(
    name="publish",
    cache_policy=NO_CACHE,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=list(RETRY_DELAYS),
    retry_condition_fn=may_succeed,
)
def publish(store: str, report: ArtifactRef, target: str, private: bool, replace: bool) -> Published:
    """Copy a report's model with its card to the target."""
    return publish_report(ArtifactStore(store), report, target, private, replace, run_log())


def publish_report(
    store: ArtifactStore, report: ArtifactRef, target: str, private: bool, replace: bool, log: Log
) -> Published:
    """Copy the model that a report is about, with the report's card, to the target; see `publish_files`.

    Raises:
        PublishError: See `publish_files`; or the model is not the one that the report is about any more.
    """
    check_target(target, private)  # before anything is downloaded
    model = _model_of(store, store.manifest_of(report))
    files = model_files(store, model, report)
    return publish_files(files, target, private=private, replace=replace, log=log)


def report_of_recipe(recipe: Recipe, store: ArtifactStore) -> ArtifactRef:
    """The report of a recipe that has been run. Raises PublishError where it has not."""
    manifest = store.find("report", stage_keys(recipe, look_outside(recipe, store))["report"])
    if manifest is None:
        raise PublishError(
            f"{recipe.name}: no report of this recipe and its sources as they are is in {store.root}; "
            "`longrecipe run` makes it"
        )
    return store.ref(manifest)


def report_of_artifact(uri: str, cache: Path | None = None) -> tuple[ArtifactStore, ArtifactRef]:
    """The store and the report behind the URI of a report, or of a merged model.

    Raises:
        PublishError: An artifact of another kind, or a model that no report is about.
        ArtifactMissingError: No artifact.
    """
    place = str(Path(uri).resolve()) if os.path.exists(uri) else uri.rstrip("/")
    store = ArtifactStore.containing(place, cache)
    manifest = store.manifest_of(place)
    if manifest.kind == "report":
        return store, store.ref(manifest)
    if manifest.kind == "checkpoint":
        for report in store.newest("report"):
            if any(_is_merge(one.name) and one.fingerprint == manifest.fingerprint for one in report.inputs):
                return store, store.ref(report)
        raise PublishError(f"{place}: no report in {store.root} is about this checkpoint, so it has no card")
    raise PublishError(f"{place}: is an artifact of kind {manifest.kind}; a report or a merged model is needed")


def _model_of(store: ArtifactStore, report: Manifest) -> ArtifactRef:
    entry = next((one for one in report.inputs if _is_merge(one.name)), None)
    model = store.find(entry.kind, entry.fingerprint) if entry is not None else None
    if entry is None or model is None or not store.input_stands(entry):
        raise PublishError(
            f"{store.ref(report).uri}: the model that it is about is gone or was made anew; run the recipe again"
        )
    return store.ref(model)


def _is_merge(name: str | None) -> bool:
    return name == "merge"
