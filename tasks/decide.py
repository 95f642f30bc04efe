"""Whether a stage's result is taken from the store, adopted or made; and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, Manifest
from longrecipe_core.artifacts.location import redact
from longrecipe_core.errors import ArtifactDamagedError, ArtifactMissingError, RecipeError, StartFromError
from tasks.adopt import Source, find_source
from tasks.reasons import what_changed
from tasks.stages import STAGES, Stage, used_stages

if TYPE_CHECKING:
    from tasks.run import Run

ABSENT = "there is no such artifact"


@dataclass(frozen=True)
class Decision:
    """What is to be done for a stage; `manifest` goes with `hit`, `source` with `adopt`."""

    action: Literal["hit", "adopt", "run"]
    why: str
    manifest: Manifest | None = None
    source: Source | None = None


def check_choices(run: "Run") -> None:
    """Raise RecipeError, one line each, where `start_from`, `force` or `adopt` name what the recipe has not.

    And where a URL may hold a secret, since the run's record, manifests and logs tell the recipe and `adopt`.
    """
    used = {stage.name: stage for stage in used_stages(run.recipe)}
    problems = list(_secrets({**run.recipe.model_dump(), "adopt": run.adopt}))
    adoptable = [name for name, stage in used.items() if stage.kind == "checkpoint"]
    places = {name: at for at, name in enumerate(used)}
    named = [("start_from", run.start_from)] if run.start_from else []
    for option, name in [*named, *(("force", one) for one in run.force)]:
        if name not in used:
            problems.append(f"{option}: this recipe has no stage {name}; allowed: {', '.join(used)}")
        elif option == "force" and places[name] < places.get(run.start_from or "", 0):
            problems.append(f"force: {name} is before start_from {run.start_from}, so it may not be computed")
    for name in run.adopt:
        if name not in adoptable:
            problems.append(
                f"adopt: {name} is no stage of this recipe that makes a checkpoint; allowed: {', '.join(adoptable)}"
            )
        elif name in run.force:
            problems.append(f"adopt: {name} is in force too; a stage's result is adopted or made again, not both")
    if problems:
        raise RecipeError("\n".join(problems))


def _secrets(node: object, key: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _secrets(value, f"{key}.{name}" if key else name)
    elif isinstance(node, list | tuple):
        for at, value in enumerate(node):
            yield from _secrets(value, f"{key}.{at}")
    elif isinstance(node, str) and redact(node) != node:
        yield (
            f"{key}: {redact(node)}: credentials, or a query that may hold some, don't belong in a URL; put them into "
            "the environment"
        )


def decide(
    run: "Run", store: ArtifactStore, stage: Stage, inputs: Mapping[str, ArtifactRef], key: str, request: str
) -> Decision:
    """What `run` does for a stage whose fingerprint is `key`; `request` is the one that its `force` stands for."""
    manifest, why = look_up(store, stage, key)
    if stage.name in run.adopt:
        source = find_source(stage.name, run.adopt[stage.name], store)
        if manifest is None or manifest.content_digest() != source.content:
            return Decision("adopt", f"adopted from {source.uri}", source=source)
        return Decision("hit", f"{why}; has the content of {source.uri}", manifest)
    if manifest is None:
        return Decision("run", what_changed(store, run.recipe, stage, inputs) if why == ABSENT else why)
    if stage.name in run.force:
        if manifest.forced != request:
            return Decision("run", "forced")
        why += f"; made again for run {request}"
    if manifest.adopted is not None:
        why += f"; adopted from {manifest.adopted.uri}"
    return Decision("hit", why, manifest)


def before_start(run: "Run", stage: Stage, action: str) -> bool:
    """Whether a stage would be computed although it comes before `start_from`."""
    order = list(STAGES)
    return bool(run.start_from) and action == "run" and order.index(stage.name) < order.index(str(run.start_from))


def refuse_before_start(run: "Run", stage: Stage, decision: Decision) -> None:
    """Raise StartFromError for a stage that would be computed although it comes before `start_from`."""
    if before_start(run, stage, decision.action):
        would_do = f"start from {stage.name}"
        if stage.kind == "checkpoint":
            would_do += f", or adopt a checkpoint as {stage.name}"
        raise StartFromError(
            f"{stage.name}: comes before start_from {run.start_from} and would have to be computed ({decision.why}); "
            f"{would_do}"
        )


def look_up(store: ArtifactStore, stage: Stage, key: str) -> tuple[Manifest | None, str]:
    """The stage's artifact if it can be used as it is, and why or why not."""
    try:
        manifest = store.find(stage.kind, key)
        if manifest is None:
            return None, ABSENT
        store.verify(store.ref(manifest))
    except (ArtifactDamagedError, ArtifactMissingError) as error:
        return None, f"damaged: {error}"
    changed = store.changed_inputs(manifest)
    if changed:
        return None, f"made from another content of {', '.join(changed)}"
    return manifest, "in the store, whole"
