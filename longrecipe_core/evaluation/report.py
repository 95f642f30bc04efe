"""What a person opens afterwards: a self-contained page and a model card."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from longrecipe_core.evaluation.table import read_rows, text_table
from longrecipe_core.recipe import Recipe
from longrecipe_core.scoring.classes import PLOT_FILE, read_classes

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ overflow-x: auto; }}
img {{ max-width: 100%; background: white; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.1rem 0.8rem 0.1rem 0; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
th {{ border-bottom: 1px solid currentColor; font-weight: normal; }}
svg {{ max-width: 100%; fill: currentColor; }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<img alt="mean NLL by position" src="data:image/png;base64,{plot}">
<h2>Evaluation</h2>
<pre>{table}</pre>
{sections}<h2>Recipe</h2>
<pre>{recipe}</pre>
</html>
"""


def write_report(
    output: Path,
    *,
    recipe: Recipe,
    evaluation: Path,
    model_uri: str,
    nll: Any,
    impact: Path | None = None,
    selection: Mapping[str, Any] | None = None,
    adopted: Mapping[str, str] | None = None,
) -> None:
    """Write `report.html`, `README.md` (a model card), `evaluation.txt` and `nll.png` into `output`.

    Args:
        output: An existing directory.
        recipe: The resolved recipe.
        evaluation: Directory of the `evaluation` artifact.
        model_uri: Where the merged model is.
        nll: Per model, mean NLL `inside_window` and in the `last_quarter` (see `table.summary`).
        impact: Directory of the `impact` artifact, where the recipe scores tokens.
        selection: What stage `index` tells about the tokens it kept; what it doesn't tell isn't shown.
        adopted: Stages whose checkpoint was not trained by this recipe, and where it was taken from.
    """
    context = recipe.context
    table = text_table(read_rows(evaluation))
    plot = (evaluation / "nll.png").read_bytes()
    lines = [
        f"Context window extended to {context.target_length} tokens with LongRecipe (arXiv 2409.00509), trained on "
        f"sequences of {context.train_length} tokens ({context.train_length / context.target_length:.0%})."
    ]
    for name, parts in nll.items():
        figures = ", ".join(f"{part.replace('_', ' ')} {value:.3f}" for part, value in parts.items())
        lines.append(f"{name}: mean NLL {figures}.")
    lines += [f"Stage {stage} was adopted from {uri}, not trained here." for stage, uri in (adopted or {}).items()]
    (output / "nll.png").write_bytes(plot)
    (output / "evaluation.txt").write_text(table + "\n", encoding="utf-8")
    page = PAGE.format(
        title=html.escape(f"{recipe.name}: {context.target_length} tokens"),
        summary="<br>".join(html.escape(line) for line in [*lines, f"Model: {model_uri}"]),
        plot=base64.b64encode(plot).decode("ascii"),
        table=html.escape(table),
        sections=(impact_section(impact) if impact else "") + selection_section(selection or {}),
        recipe=html.escape(recipe.to_yaml()),
    )
    (output / "report.html").write_text(page, encoding="utf-8")
    base = f"base_model: {recipe.model.path}\n" if recipe.model else ""
    text = "\n".join(lines)
    card = (
        f"---\n{base}tags:\n- long-context\n- longrecipe\n---\n\n# {recipe.name}\n\n{text}\n\n"
        f"![mean NLL by position](nll.png)\n\n```\n{table}\n```\n\n## Recipe\n\n```yaml\n{recipe.to_yaml()}```\n"
    )
    (output / "README.md").write_text(card, encoding="utf-8")


def impact_section(impact: Path) -> str:
    """The table and the plot of token classes beside the paper's figure (section 4.1), as HTML."""
    head = ("class", "types", "occurrences", "mean score", "of the top", "of all", "paper, of the top")
    rows = [
        (
            row["token_class"],
            f"{row['types']:,}",
            f"{row['occurrences']:,}",
            f"{row['mean_score']:+.3f}",
            f"{row['share_of_top']:.3f}",
            f"{row['share_of_all']:.3f}",
            "" if row["paper"] is None else f"≈ {row['paper']:.2f}",
        )
        for row in read_classes(impact)
    ]
    plot = base64.b64encode((impact / PLOT_FILE).read_bytes()).decode("ascii")
    return (
        "<h2>Impactful tokens</h2>\n"
        "<p>Whose logits a longer context raises (Eq. 3 of the paper). A token is in the top where its own difference "
        "is among the greatest of the whole vocabulary's.</p>\n"
        f'{_table(head, rows)}<img alt="token classes" src="data:image/png;base64,{plot}">\n'
    )


# What stage `index` counts, how a person reads it.
SELECTION = {
    "tokens_read": ("tokens read", "{:,}"),
    "tokens_kept": ("tokens kept", "{:,}"),
    "share_kept": ("of those read", "{:.1%}"),
    "sentences_kept": ("sentences kept", "{:,}"),
    "sentences_read": ("sentences read", "{:,}"),
    "sentences_with_anchor": ("of these with an anchor", "{:,}"),
    "anchor_share": ("tokens kept that stand in anchor sentences", "{:.1%}"),
    "topped_up": ("samples whose anchor sentences did not fill the budget", "{:,}"),
    "documents_skipped_too_short": ("documents skipped as too short", "{:,}"),
}


def selection_section(selection: Mapping[str, Any]) -> str:
    """What was kept of the documents, and from where in them, as HTML; empty where nothing is told."""
    rows = [(label, form.format(selection[key])) for key, (label, form) in SELECTION.items() if key in selection]
    kept, available = selection.get("histogram"), selection.get("histogram_available")
    if not rows and not kept:
        return ""
    bars = _bars(kept, available or [0.0] * len(kept)) if kept else ""
    return f"<h2>Selection</h2>\n{_table((), rows) if rows else ''}{bars}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    titles = line("th", head) if head else ""
    return f"<table>\n{titles}{''.join(line('td', row) for row in rows)}</table>\n"


def _bars(kept: Sequence[float], available: Sequence[float]) -> str:
    """Bars in the page's own colour, light or dark: shares of all kept tokens, and faintly those of all tokens read."""
    width, height, highest = 30, 120, max(*kept, *available, 1e-9)

    def bar(place: int, share: float, shade: float) -> str:
        top, tall = height * (1 - share / highest), height * share / highest
        return (
            f'<rect x="{place * width}" y="{top:.1f}" width="{width - 2}" height="{tall:.1f}" '
            f'opacity="{shade}"><title>{share:.3f}</title></rect>'
        )

    bars = "".join(
        bar(place, read, 0.2) + bar(place, own, 0.6)
        for place, (own, read) in enumerate(zip(kept, available, strict=True))
    )
    return (
        "<p>Tokens kept (dark) and read (light), by place in the document, from its start to its end:</p>\n"
        f'<svg viewBox="0 0 {width * len(kept)} {height}" width="{width * len(kept)}" role="img" '
        f'aria-label="tokens kept by place in the document">{bars}</svg>\n'
    )
