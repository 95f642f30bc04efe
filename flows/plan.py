"""What a run would do: the same keys and look-ups, and no work."""

from collections.abc import Iterator
from dataclasses import dataclass

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore
from longrecipe_core.recipe import Recipe
from tasks.outside import look_outside
from tasks.run import look_up
from tasks.stages import stage_key, used_inputs, used_stages


@dataclass(frozen=True)
class PlannedStage:
    """One line of a plan."""

    stage: str
    status: str
    why: str
    fingerprint: str


def plan(recipe: Recipe, store: ArtifactStore) -> Iterator[PlannedStage]:
    """Per stage, `hit` or `run` and why, in order."""
    refs = look_outside(recipe, store)
    remade: list[str] = []
    for stage in used_stages(recipe):
        inputs = {name: refs[name] for name in used_inputs(recipe, stage)}
        key = stage_key(recipe, stage, inputs)
        manifest, why = look_up(store, stage, key)
        waits = [name for name in inputs if name in remade]
        if manifest is None:
            remade.append(stage.name)
            refs[stage.name] = ArtifactRef(uri=store.place(stage.kind, key).uri, kind=stage.kind, fingerprint=key)
            yield PlannedStage(stage.name, "run", why, key)
        else:
            refs[stage.name] = store.ref(manifest)
            note = f"{why}; runs if {', '.join(waits)}, made again, has another content" if waits else why
            yield PlannedStage(stage.name, "hit", note, key)
