"""Why a stage's result is not in the store: what differs from the nearest one that is."""

import itertools
from collections.abc import Iterator, Mapping

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, Manifest
from longrecipe_core.recipe import Recipe, changed_keys, stage_part
from tasks.stages import Stage, used_inputs

LOOKED_AT = 10
"""Artifacts of the stage, newest first, of which the nearest is taken."""


def what_changed(store: ArtifactStore, recipe: Recipe, stage: Stage, inputs: Mapping[str, ArtifactRef]) -> str:
    """What differs from the nearest earlier result of the stage, such as `extend.learning_rate 5e-5 → 1e-5`."""
    nearest: list[str] | None = None
    for manifest in itertools.islice(_earlier(store, recipe, stage), LOOKED_AT):
        changes = _changes(manifest, recipe, stage, inputs)
        if nearest is None or len(changes) < len(nearest):
            nearest = changes
    if nearest is None:
        return "there is no such artifact"
    return ", ".join(nearest) or "it was made by other code"


def is_of(manifest: Manifest, recipe: Recipe, stage: Stage) -> bool:
    """Whether an artifact was made by `stage`; an early one, which doesn't say, by its kind, keys and inputs."""
    if manifest.stage is not None:
        return manifest.stage == stage.name
    alike = manifest.kind == stage.kind and manifest.recipe.keys() == stage_part(recipe, stage.name).keys()
    return alike and len(manifest.inputs) == len(used_inputs(recipe, stage))


def _earlier(store: ArtifactStore, recipe: Recipe, stage: Stage) -> Iterator[Manifest]:
    return (one for one in store.newest(stage.kind) if is_of(one, recipe, stage))


def _changes(manifest: Manifest, recipe: Recipe, stage: Stage, inputs: Mapping[str, ArtifactRef]) -> list[str]:
    version = manifest.stage_version
    changes = changed_keys(stage.name, manifest.recipe, stage_part(recipe, stage.name))
    if version is not None and version != stage.version:
        changes.append(f"version {version} → {stage.version} of the stage's code")
    before = {entry.name: entry for entry in manifest.inputs}
    if None in before:  # early ones tell no names, but stand in order
        before = dict(zip(used_inputs(recipe, stage), manifest.inputs, strict=False))
    for name, ref in inputs.items():
        entry = before.get(name)
        if entry is None or entry.fingerprint != ref.fingerprint:
            changes.append(f"{name} changed: {ref.uri}" if ref.kind == "outside" else f"input {name} is another")
    return changes
