"""What a person opens afterwards: a self-contained page and a model card."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longrecipe_core.evaluation.plot import plot_nll
from longrecipe_core.evaluation.report import measures
from longrecipe_core.evaluation.report.card import model_card
from longrecipe_core.evaluation.report.data import coverage_section, impact_section, selection_section
from longrecipe_core.evaluation.report.page import render
from longrecipe_core.evaluation.report.parts import Code, Part, Picture, Section
from longrecipe_core.evaluation.report.run import key_figures, run_section, summary_line
from longrecipe_core.evaluation.report.stages import Made, cost_section, lineage_section, loss_section
from longrecipe_core.evaluation.table import read_rows, text_table
from longrecipe_core.recipe import Recipe

__all__ = ["Found", "Made", "write_report"]

CARD_FILE, PAGE_FILE, TABLE_FILE = "README.md", "report.html", "evaluation.txt"
PICTURES = {"nll.png": "mean NLL by position", "needles.png": "needles found, by depth and length"}
"""Of the `evaluation` artifact, copied beside the card."""


@dataclass(frozen=True)
class Found:
    """What a report is made of, beside the recipe.

    `evaluation`, `index` and `impact` are directories of artifacts, the last only of recipes that score tokens. `nll`
    and `window` are the evaluation's own summary (see `table.summary`), `model` is what its rows call the merged model,
    and `reference` the model that differences are from. `selection` is what stage `index` counts. `config` is the
    content of the merged model's config.json, `license_id` the base model's, where it is known.
    """

    evaluation: Path
    index: Path
    model_uri: str
    model: str
    reference: str
    nll: Mapping[str, Mapping[str, float]]
    window: int | None
    impact: Path | None = None
    selection: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[Made] = ()
    license_id: str | None = None


def write_report(output: Path, recipe: Recipe, found: Found) -> None:
    """Write `report.html`, `README.md` (a model card), `evaluation.txt` and the card's pictures into `output`."""
    rows = read_rows(found.evaluation)
    adopted = [
        f"Stage {stage.name} was adopted from {stage.origin.manifest.adopted.uri}, not trained here."
        for stage in found.stages
        if stage.origin.manifest and stage.origin.manifest.adopted
    ]
    measured = measured_sections(rows, found)
    sections = [
        run_section(recipe, found.model_uri, found.window, found.config),
        *measured,
        cost_section(recipe, found.stages, found.config),
        loss_section(found.stages),
        coverage_section(found.index, recipe.positions.strategy, recipe.context.target_length),
        impact_section(found.impact) if found.impact else None,
        selection_section(found.selection),
        lineage_section(found.stages),
        Section("Recipe", (Code(recipe.to_yaml()),), folded=True),
    ]
    title = f"{recipe.name}: {recipe.context.target_length:,} tokens"
    page = render(title, [summary_line(recipe), *adopted], [section for section in sections if section])
    (output / PAGE_FILE).write_text(page, encoding="utf-8")
    (output / TABLE_FILE).write_text(text_table(rows) + "\n", encoding="utf-8")
    pictures = {name: what for name, what in PICTURES.items() if (found.evaluation / name).is_file()}
    for name in pictures:
        (output / name).write_bytes((found.evaluation / name).read_bytes())
    told = [run_section(recipe, "", found.window, found.config), *measured]
    card = model_card(recipe, rows, found.model, told, pictures, found.license_id)
    (output / CARD_FILE).write_text(card, encoding="utf-8")


def measured_sections(rows: Sequence[dict[str, Any]], found: Found) -> list[Section]:
    """What the evaluation found; sections without anything are left out."""
    png = io.BytesIO()
    plot_nll(rows, found.window, png, dpi=180, size=(5.2, 4.2))
    loss: list[Part] = [key_figures(found.nll), Picture(png.getvalue(), "mean NLL by position")]
    parts = {
        "Loss by position": [*loss, *measures.nll_parts(rows)],
        "Retrieval": list(measures.retrieval_parts(rows)),
        "RULER": list(measures.ruler_parts(rows)),
        "Benchmarks": list(measures.benchmark_parts(rows)),
        "Other measures": list(measures.other_parts(rows)),
    }
    sections = [Section(title, tuple(content)) for title, content in parts.items() if content]
    differences = measures.difference_section(measures.paired_rows(found.evaluation, found.reference), found.reference)
    if differences:
        sections.insert(1, differences)
    return sections
