"""The model card, `README.md` of the model's directory: the hub's metadata, figures, the recipe."""

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.report.parts import Section, Table
from longrecipe_core.evaluation.report.run import summary_line
from longrecipe_core.recipe import Recipe

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DOCUMENTS = ("longrecipe-validation", "documents held out of the training corpus")
"""Type and name of the data set that our own measures are taken on, as the hub's metadata want them."""


def model_card(
    recipe: Recipe,
    rows: Sequence[Row],
    model: str,
    sections: Sequence[Section],
    pictures: Mapping[str, str],
    license_id: str | None = None,
) -> str:
    """The card's text, with metadata as the hub takes them.

    Args:
        recipe: The resolved one.
        rows: Of the evaluation.
        model: What the merged model is called in them.
        sections: What is told in tables; other parts are left out.
        pictures: Files beside the card, and what they show.
        license_id: As the base model's card has it, where it has.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [EvalResult(**result) for result in eval_results(rows, model, recipe.context.target_length)]
    data = ModelCardData(
        base_model=base_model(recipe),
        base_model_relation="finetune" if base_model(recipe) else None,
        library_name="transformers",
        license=license_id,
        model_name=recipe.name,
        pipeline_tag="text-generation",
        tags=["long-context", "longrecipe", "arxiv:2409.00509"],
        eval_results=results or None,
    )
    metadata = data.to_yaml(line_break="\n").strip()
    lines = [f"---\n{metadata}\n---\n", f"# {plain(recipe.name)}\n", f"{summary_line(recipe)}\n"]
    lines += [f"![{plain(what)}]({name})\n" for name, what in pictures.items()]
    for section in sections:
        tables = [part for part in section.parts if isinstance(part, Table)]
        if tables:
            lines.append(f"## {plain(section.title)}\n")
            lines += [_table(table) for table in tables]
    lines.append(f"## Recipe\n\nAs it was resolved; `longrecipe run` takes it.\n\n{_block(recipe.to_yaml(), 'yaml')}")
    return "\n".join(lines)


def base_model(recipe: Recipe) -> str | None:
    """The base model's hub id; None for a model that is not on the hub, which the hub would refuse."""
    path = recipe.model.path if recipe.model else ""
    return path if HUB_ID.fullmatch(path) and not Path(path).exists() else None


def license_of(card: bytes | None) -> str | None:
    """The `license` that a model card's metadata name; None where it has none, or is none."""
    import yaml

    found = re.match(rb"---\r?\n(.*?)\r?\n---", card or b"", re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1].decode("utf-8")) if found else None
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    named = metadata.get("license") if isinstance(metadata, dict) else None
    return named if isinstance(named, str) and re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", named) else None


def eval_results(rows: Sequence[Row], model: str, target_length: int) -> Iterator[dict[str, Any]]:
    """Arguments of the hub's `EvalResult` for one model; figures that are not finite are left out."""
    for row in rows:
        if row["model"] != model or not math.isfinite(row["value"]):
            continue
        found = _result(row, target_length)
        if found is not None:
            kind, name, dataset = found
            yield {
                "task_type": "text-generation",
                "dataset_type": dataset[0],
                "dataset_name": dataset[1],
                "metric_type": kind,
                "metric_name": name,
                "metric_value": round(float(row["value"]), 6),
            }


def _result(row: Row, target_length: int) -> tuple[str, str, tuple[str, str]] | None:
    """Kind of metric, its name, and the data set's type and name."""
    measure, length = row["measure"], row.get("length")
    if measure == "nll":
        return "nll", f"mean NLL (nats per token) at positions {row['start']}-{row['end']}", DOCUMENTS
    if measure in ("ppl", "long_ppl"):
        name = "perplexity" if measure == "ppl" else f"LongPPL ({row['task']})"
        return "perplexity", f"{name} at {length or target_length} tokens", DOCUMENTS
    if measure == "passkey":
        return "accuracy", f"passkeys found at distance {row['end']}", ("passkey", "passkey retrieval")
    if measure == "ruler_mean":
        return "score", f"RULER, mean score at {length} tokens", ("ruler", "RULER, made offline by LongRecipe")
    if measure == "effective_length":
        return "effective_length", "RULER, effective length (tokens)", ("ruler", "RULER, made offline by LongRecipe")
    if measure == "benchmark":
        metric = str(row.get("metric") or "score")
        return metric, metric, (str(row["task"]), f"{row['task']} (lm-eval)")
    return None


def plain(text: object) -> str:
    """Any text on one line with nothing in it that markdown or HTML gives a meaning."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", line)


def _table(table: Table) -> str:
    width = max(len(row) for row in (table.head, *table.rows))
    head = table.head or ("",) * width
    ruler = ["---" if column < table.names else "---:" for column in range(width)]
    lines = [f"| {' | '.join(cells)} |" for cells in ([plain(c) for c in head], ruler)]
    lines += [f"| {' | '.join(plain(cell) for cell in row)} |" for row in table.rows]
    return (f"**{plain(table.title)}**\n\n" if table.title else "") + "\n".join(lines) + "\n"


def _block(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}{fence}\n"
