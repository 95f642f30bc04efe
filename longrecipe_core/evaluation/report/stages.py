"""What was made before the report: every stage above it, with its cost, its training's curve and where it came from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from longrecipe_core.artifacts import Lineage
from longrecipe_core.cost.gpus import GPUS
from longrecipe_core.cost.shapes import ModelShape
from longrecipe_core.cost.trainings import Cost, cost, trainings
from longrecipe_core.errors import ModelError
from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.report.parts import Picture, Pictures, Section, Table, Text
from longrecipe_core.recipe import Recipe

TRAININGS = ("base", "warmup", "extend", "anneal")
OTHER_MODELS = "evaluation.models."
"""How stage `evaluate` calls such inputs."""


@dataclass(frozen=True)
class Made:
    """One stage's artifact, or what comes from outside; `steps` are the rows of a training's `metrics.jsonl`."""

    origin: Lineage
    steps: Sequence[Row] = field(default=())

    @property
    def name(self) -> str:
        """The stage's, else what kind of thing it is."""
        manifest = self.origin.manifest
        return (manifest.stage if manifest else None) or self.origin.kind


def all_above(origins: Sequence[Lineage]) -> list[Lineage]:
    """These and all that they were made from, each once, and none before what it was made from.

    A model that was only measured beside the run's own stands as from outside: its trainings are no cost of this run.
    """
    found: dict[str, Lineage] = {}

    def visit(one: Lineage) -> None:
        if one.uri not in found:
            names = [entry.name or "" for entry in one.manifest.inputs] if one.manifest else []
            for name, above in zip(names, one.inputs, strict=True):
                visit(replace(above, manifest=None, inputs=()) if name.startswith(OTHER_MODELS) else above)
            found.setdefault(one.uri, one)

    for one in origins:
        visit(one)
    return list(found.values())


def cost_section(recipe: Recipe, stages: Sequence[Made], config: Mapping[str, Any]) -> Section:
    """Seconds of every stage; tokens and FLOPs of trainings, and hours on GPUs as the cost model has them.

    Args:
        recipe: Of the run.
        stages: In order.
        config: Content of the model's config.json, for its shape.
    """
    try:
        told = _costs(recipe, stages, ModelShape.from_config(config, "config.json"))
        note = ""
    except ModelError as error:
        told, note = {}, f"FLOPs and hours are not told: {error}"
    rows = []
    for stage in stages:
        manifest = stage.origin.manifest
        if manifest is None:
            continue
        counted = _tokens(manifest.metrics)
        each = None if manifest.adopted else told.get(stage.name)
        rows.append(
            (
                stage.name,
                f"{manifest.seconds:,.1f}",
                f"{counted:,}" if counted is not None else "",
                f"{each.flops:.2e}" if each else "",
                *(_hours(each.hours[gpu.name]) if each else "" for gpu in GPUS),
            )
        )
    total = sum(stage.origin.manifest.seconds for stage in stages if stage.origin.manifest)
    rows.append(("all", f"{total:,.1f}", *[""] * (2 + len(GPUS))))
    head = ("stage", "seconds here", "tokens", "FLOPs", *(f"hours on {gpu.name}, predicted" for gpu in GPUS))
    text = (
        f"Seconds are those of the machine that ran the stage. Hours are predicted by the cost model for "
        f"{recipe.launch.processes} GPU{'s' if recipe.launch.processes > 1 else ''}; nothing was measured on one."
    )
    return Section("Cost", (Text(text), *([Text(note)] if note else []), Table(head, tuple(rows))))


def loss_section(stages: Sequence[Made]) -> Section | None:
    """Loss curves of the trainings that are known; None without any."""
    from longrecipe_core.training.loss_plot import plot_losses

    curves = {stage.name: stage.steps for stage in stages if stage.name in TRAININGS and stage.steps}
    if not curves:
        return None
    rows = []
    for name, steps in curves.items():
        seconds, tokens = sum(row["seconds"] for row in steps), sum(row["tokens"] for row in steps)
        rows.append(
            (
                name,
                f"{steps[-1]['step']:,}",
                f"{tokens:,}",
                f"{steps[0]['loss']:.4f}",
                f"{steps[-1]['loss']:.4f}",
                f"{max(row['lr'] for row in steps):.2g}",
                f"{tokens / seconds:,.0f}" if seconds else "",
                f"{max(row['peak_memory_mb'] for row in steps):,.0f}" if "peak_memory_mb" in steps[0] else "",
            )
        )
    head = ("training", "steps", "tokens", "first loss", "last loss", "highest rate", "tokens/s", "peak MiB")
    pictures = (
        Picture(plot_losses({name: steps}, dpi=180), f"loss over the steps of {name}") for name, steps in curves.items()
    )
    return Section("Loss curves", (Table(head, tuple(rows)), Pictures(tuple(pictures))))


def lineage_section(stages: Sequence[Made]) -> Section:
    """Where everything came from."""
    head = ("stage", "fingerprint", "made (UTC)", "seconds", "git commit", "how", "where")
    return Section("Lineage", (Table(head, tuple(_lineage_rows(stages)), names=7),), folded=True)


def _lineage_rows(stages: Sequence[Made]) -> Iterator[tuple[str, ...]]:
    for stage in stages:
        origin, manifest = stage.origin, stage.origin.manifest
        if manifest is None:
            how = "gone or made anew since" if origin.changed else "from outside"
            yield (stage.name, origin.fingerprint[:16], "", "", "", how, origin.uri)
            continue
        how = f"adopted from {manifest.adopted.uri}" if manifest.adopted else "made here"
        if origin.changed:
            how += ", made anew since"
        commit = manifest.git_commit or ""
        commit = commit[:12] + ("-dirty" if commit.endswith("-dirty") else "")
        when = manifest.created[:19].replace("T", " ")
        yield (stage.name, origin.fingerprint[:16], when, f"{manifest.seconds:,.1f}", commit, how, origin.uri)


def _costs(recipe: Recipe, stages: Sequence[Made], shape: ModelShape) -> dict[str, Cost]:
    samples = {}
    for name, metric in (("index", "samples"), ("replay", "rows")):
        for stage in stages:
            rows = stage.origin.manifest.metrics.get(metric) if stage.origin.manifest else None
            if stage.name == name and isinstance(rows, int):
                samples[name] = rows
    return {one.stage: cost(one) for one in trainings(recipe, shape, samples) if not one.guessed}


def _tokens(metrics: Mapping[str, Any]) -> int | None:
    """Of a training, those that it was trained on; of data, those that are in it."""
    found = metrics.get("tokens")
    if found is None and "splits" in metrics:
        found = sum(split["tokens"] for split in metrics["splits"].values())
    if found is None and isinstance(metrics.get("selection"), Mapping):
        found = metrics["selection"].get("tokens_kept")
    return found if isinstance(found, int) else None


def _hours(hours: float) -> str:
    return "< 0.01" if hours < 0.01 else f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
