"""What was run, in a table: the recipe's figures that decide what came out."""

from collections.abc import Mapping, Sequence
from typing import Any

from longrecipe_core.evaluation.report.parts import Section, Table, facts
from longrecipe_core.recipe import Recipe, TrainingSection


def run_section(recipe: Recipe, model_uri: str, window: int | None, config: Mapping[str, Any]) -> Section:
    """The recipe in figures.

    Args:
        recipe: The resolved one.
        model_uri: Where the merged model is; nothing, where that is nobody's business.
        window: The base model's, in tokens, where it is known.
        config: Content of the merged model's config.json.
    """
    context, merge = recipe.context, recipe.merge
    if recipe.model:
        base = recipe.model.path + (f" at {recipe.model.revision}" if recipe.model.revision else "")
    else:
        assert recipe.base is not None
        base = f"trained here: {recipe.base.layers} layers, hidden size {recipe.base.hidden_size}"
    stretch = f" ({context.target_length / window:g}× the base model's {window:,})" if window else ""
    rows: list[tuple[str, object]] = [
        ("recipe", recipe.name),
        ("base model", base),
        ("window", f"{context.target_length:,} tokens{stretch}"),
        ("trained on", f"sequences of {context.train_length:,} tokens, {_share(recipe)} of the window"),
        ("positions", recipe.positions.strategy),
        ("sentences", recipe.selection.strategy),
        ("RoPE", rope_text(recipe, config)),
        ("stage 0, extension", _training(recipe.extend)),
        ("stage 1, annealing", _training(recipe.anneal)),
        ("stage 2, merge", f"{merge.base_weight:g} base + {merge.trained_weight:g} trained"),
        ("seed", recipe.seed),
        ("merged model", model_uri or None),
    ]
    return Section("What was run", (facts(rows),))


def key_figures(nll: Mapping[str, Mapping[str, float]]) -> Table:
    """Per model, mean NLL in the parts of the window that the evaluation's summary has."""
    titles = {"inside_window": "inside the base model's window", "last_quarter": "in the window's last quarter"}
    names: Sequence[str] = list(dict.fromkeys(name for parts in nll.values() for name in parts))
    head = ("model", *(titles.get(name, name.replace("_", " ")) for name in names))
    rows = tuple(
        (model, *(f"{parts[name]:.3f}" if name in parts else "" for name in names)) for model, parts in nll.items()
    )
    return Table(head, rows, "Mean NLL, nats per token")


def summary_line(recipe: Recipe) -> str:
    """What was done, in a sentence."""
    context = recipe.context
    return (
        f"Context window extended to {context.target_length:,} tokens with LongRecipe (arXiv 2409.00509), trained on "
        f"sequences of {context.train_length:,} tokens ({_share(recipe)})."
    )


def rope_text(recipe: Recipe, config: Mapping[str, Any]) -> str:
    """The kind of change, and the base frequency that the saved config has."""
    rope = recipe.rope
    stretch = f", factor {rope.factor:g}" if rope.factor else ""
    parameters = config.get("rope_parameters") or {}
    theta = config.get("rope_theta") or parameters.get("rope_theta")
    return f"{rope.type}{stretch}" + (f", θ = {theta:,.10g}" if isinstance(theta, int | float) else "")


def _share(recipe: Recipe) -> str:
    return f"{recipe.context.train_length / recipe.context.target_length:.0%}"


def _training(section: TrainingSection) -> str:
    long = f"{section.steps:,} steps" if section.steps else f"{section.epochs} epoch{'s' * (section.epochs > 1)}"
    lora = f", LoRA of rank {section.lora.rank}" if section.lora else ""
    return (
        f"{long} of {section.global_batch} sequences, {section.schedule} rate {section.learning_rate:g}, "
        f"{section.precision}{lora}"
    )
