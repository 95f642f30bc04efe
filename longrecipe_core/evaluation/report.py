"""What a person opens afterwards: a self-contained page and a model card."""

import base64
import html
from pathlib import Path
from typing import Any

from longrecipe_core.evaluation.table import read_rows, text_table
from longrecipe_core.recipe import Recipe

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
</style>
<h1>{title}</h1>
<p>{summary}</p>
<img alt="mean NLL by position" src="data:image/png;base64,{plot}">
<h2>Evaluation</h2>
<pre>{table}</pre>
<h2>Recipe</h2>
<pre>{recipe}</pre>
</html>
"""


def write_report(output: Path, *, recipe: Recipe, evaluation: Path, model_uri: str, nll: Any) -> None:
    """Write `report.html`, `README.md` (a model card), `evaluation.txt` and `nll.png` into `output`.

    Args:
        output: An existing directory.
        recipe: The resolved recipe.
        evaluation: Directory of the `evaluation` artifact.
        model_uri: Where the merged model is.
        nll: Per model, mean NLL `inside_window` and in the `last_quarter` (see `table.summary`).
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
    (output / "nll.png").write_bytes(plot)
    (output / "evaluation.txt").write_text(table + "\n", encoding="utf-8")
    page = PAGE.format(
        title=html.escape(f"{recipe.name}: {context.target_length} tokens"),
        summary="<br>".join(html.escape(line) for line in [*lines, f"Model: {model_uri}"]),
        plot=base64.b64encode(plot).decode("ascii"),
        table=html.escape(table),
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
