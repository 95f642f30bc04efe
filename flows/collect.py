"""`longrecipe gc`: remove what no kept run refers to."""

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from longrecipe_core.artifacts import ArtifactStore, Manifest, RunRecord, RunRecords
from longrecipe_core.artifacts.exclusive import read_if_present
from longrecipe_core.artifacts.garbage import GRACE, Roots, find_rubbish, remove
from longrecipe_core.artifacts.manifest import plain_recipe
from longrecipe_core.artifacts.store import POINTERS
from longrecipe_core.errors import StoreError
from longrecipe_core.recipe import Recipe, stage_part
from tasks.stages import OF_NO_RECIPE, STAGES, used_stages

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_collect_command(commands: "Commands", store: argparse.ArgumentParser) -> None:
    """Add the command; `store` has the argument `--store`."""
    text = "tell what no kept run refers to, and how large it is; with --delete, remove it"
    command = commands.add_parser("gc", parents=[store], help=text, description=text)
    command.set_defaults(command=collect)
    command.add_argument("--keep-last", type=_count, metavar="N", help="keep the newest N runs (default: all)")
    command.add_argument(
        "--older-than", type=_count, metavar="DAYS", help="keep the runs that ended within DAYS (default: all)"
    )
    command.add_argument("--delete", action="store_true", help="remove it; else nothing is changed")


def collect(arguments: argparse.Namespace) -> int:
    """Print a line per directory, and the sum; remove them where asked to."""
    store = ArtifactStore(arguments.store)
    now = datetime.now(UTC)
    records = RunRecords(store)
    ids = records.ids()  # of a run that begins after this, nothing is known
    runs = list(records.all())
    if not runs:
        raise StoreError(f"{store.root}: no run is recorded here, so nothing tells what is in use; run a recipe first")
    kept = kept_runs(runs, arguments.keep_last, arguments.older_than, now)
    roots = Roots.of([stage.uri for run in kept for stage in run.stages] + models_of(kept) + pointed_at(store))
    rubbish = find_rubbish(store, roots, hit_by(kept), now=now)
    freed = 0
    for one in rubbish:
        left = arguments.delete and not remove(store, one, lambda: records.ids() == ids)
        freed += 0 if left else one.bytes
        where = one.place.uri.removeprefix(f"{store.root}/")
        print(f"{human(one.bytes):>9}  {where}  {one.why}{'; left: it is in use' if left else ''}", flush=True)
    forgotten = [run for run in runs if run not in kept]
    for run in forgotten:
        print(f"{'':>9}  runs/{run.id}.json  {run.flow} {run.name}, {run.state_now()}", flush=True)
        if arguments.delete:
            records.remove(run.id)
    done = "removed" if arguments.delete else "nothing was removed; --delete removes"
    print(f"{human(freed):>9}  {done}; {len(kept)} of {len(runs)} runs kept")
    return 0


def kept_runs(
    runs: Sequence[RunRecord], keep_last: int | None, older_than: int | None, now: datetime
) -> list[RunRecord]:
    """Runs that stay: those that either option keeps, all without options, and any that was alive just now."""
    chosen = len(runs) if keep_last is None and older_than is None else keep_last or 0
    since = now - max(GRACE, timedelta(days=older_than or 0))
    return [
        run
        for at, run in enumerate(runs)
        if at < chosen or run.state_now() == "running" or datetime.fromisoformat(run.ended or run.renewed) >= since
    ]


def models_of(runs: Sequence[RunRecord]) -> list[str]:
    """Paths of the models that recipes start from or measure, which may be artifacts that earlier runs have made."""
    trees: list[Any] = [run.recipe for run in runs]
    sections = [tree.get("model") for tree in trees] + [(tree.get("score") or {}).get("model") for tree in trees]
    for tree in trees:
        sections += (tree.get("evaluation") or {}).get("models") or ()
    return [section["path"] for section in sections if section and section["path"]]


def pointed_at(store: ArtifactStore) -> list[str]:
    """URIs that the store's pointers name as what must stay. Raises StoreError for a pointer that can't be read."""
    uris: list[str] = []
    directory = store.location / POINTERS
    for name in directory.children():
        if name.endswith(".json"):
            path = directory / name
            try:
                uris += json.loads(read_if_present(path.fs, path.path) or b"")["refs"]
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{path.uri}: can't be read, so what it keeps is unknown: {error!r}") from None
    return uris


def hit_by(runs: Sequence[RunRecord]) -> Callable[[Manifest], bool]:
    """Whether one of these runs that is not completed could still find an artifact and take it as a stage's result.

    Its part of the recipe tells: what the artifact was made from need not be looked at.
    """
    parts: dict[str, list[object]] = {}
    for run in runs:
        if run.state == "completed":
            continue
        try:
            recipe = Recipe.model_validate(run.recipe)
        except ValidationError:
            if run.state_now() == "running":
                raise StoreError(
                    f"run {run.id}: is running with a recipe of another release; wait for its end"
                ) from None
            continue  # it could not be resumed by this release
        for stage in [*used_stages(recipe), *(STAGES[name] for name in OF_NO_RECIPE)]:
            parts.setdefault(stage.name, []).append(plain_recipe(stage_part(recipe, stage.name)))

    def hit(manifest: Manifest) -> bool:
        stages = (
            [manifest.stage] if manifest.stage else [one.name for one in STAGES.values() if one.kind == manifest.kind]
        )
        return any(manifest.recipe in parts.get(stage, []) for stage in stages)

    return hit


def human(size: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be a number, 0 or above")
    return int(text)
