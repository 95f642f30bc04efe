"""Names that people read in Prefect's UI: of runs and of what they publish."""

import re

from longrecipe_core.recipe import Recipe


def short_length(tokens: int) -> str:
    """A number of tokens, exactly: 24,000 is `24k`, 38,400 `38.4k`, 1,024 and 8,192 `1k` and `8k`, 307 `307`."""
    if tokens >= 1000 and tokens % 100 == 0:
        return f"{tokens // 1000}k" if tokens % 1000 == 0 else f"{tokens // 1000}.{tokens % 1000 // 100}k"
    if tokens and tokens % 1024 == 0:
        return f"{tokens // 1024}k"
    return str(tokens)


def flow_run_name(recipe: Recipe) -> str:
    """`llama3-8b-80k · 24k→80k`: the recipe, and what it trains on for which window."""
    return f"{recipe.name} · {_lengths(recipe)}"


def stage_run_name(stage: str, recipe: Recipe) -> str:
    """`extend · llama3-8b-80k · 24k→80k`: the stage, the recipe, and what tells two such runs apart."""
    context, merge = recipe.context, recipe.merge
    details = {
        "base": short_length(recipe.base.window) if recipe.base else "",
        "warmup": short_length(context.target_length),
        "score": recipe.score.source if recipe.score else "",
        "index": _lengths(recipe),
        "extend": _lengths(recipe),
        "replay": short_length(context.train_length),
        "anneal": short_length(context.train_length),
        "merge": f"{merge.base_weight:g}/{merge.trained_weight:g}",
        "evaluate": short_length(context.target_length),
        "measure": short_length(context.target_length),
        "measure_rope": short_length(context.target_length),
    }
    return " · ".join(part for part in (stage, recipe.name, details.get(stage, "")) if part)


def artifact_key(recipe: Recipe, card: str) -> str:
    """A key under which all runs of a recipe publish, so that the UI shows versions: lower case, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{recipe.name}-{card}".lower()).strip("-")


def _lengths(recipe: Recipe) -> str:
    return f"{short_length(recipe.context.train_length)}→{short_length(recipe.context.target_length)}"
