"""Which part of a recipe decides which stage's result. Only this part enters the stage's fingerprint.

A part holds no path: what a path leads to enters by content, as an input of the stage. `launch` and `promotion` are in
no part.
"""

from typing import Any

from longrecipe_core.recipe.evaluated_models import OWN_MODELS
from longrecipe_core.recipe.schema import Recipe
from longrecipe_core.recipe.sections import SourceSection

RULER_PROMPTS = 2
"""Raised by hand when the code would ask RULER's tasks otherwise: evaluations that take none of them stay valid."""


def stage_part(recipe: Recipe, stage: str) -> dict[str, Any]:
    """The part of `recipe` that decides the result of `stage`, as plain values.

    Raises:
        KeyError: No such stage.
    """
    tree = recipe.model_dump(mode="json")
    own, warmup = (tree["base"] or {}).get("training"), (tree["score"] or {}).get("warmup")
    for training in (own, warmup, tree["extend"], tree["anneal"]):
        # Results that were made before there was this key stay valid.
        if training is not None and training["lora"] is None:
            del training["lora"]
    base = tree["base"] and {
        key: value
        for key, value in tree["base"].items()
        if value is not None or key not in ("copies", "minimum_copying")
    }
    if base and "minimum_copying" in base:
        # What is measured stands in the result; what is enough is asked of it anew in every run.
        base["minimum_copying"] = {key: base["minimum_copying"][key] for key in ("distances", "span", "samples")}
    evaluation = measures(tree["evaluation"])
    trust = bool(recipe.model and recipe.model.trust_remote_code)
    corpus = recipe.corpus.model_dump(mode="json", exclude={"sources", "upsampling"})
    corpus["sources"] = [reading(source) for source in recipe.corpus.sources]
    mixture = {
        "weights": [source.weight for source in recipe.corpus.sources],
        "upsampling": tree["corpus"]["upsampling"],
    }
    measured = {
        "evaluation": {key: value for key, value in evaluation.items() if key not in ("stages", "models")},
        **{key: tree["context"][key] for key in ("window", "target_length")},
        "seed": recipe.seed,
        "trust_remote_code": trust,
    }
    parts: dict[str, dict[str, Any]] = {
        "base": {"base": base, "corpus": corpus, "seed": recipe.seed},
        "tokenize": {"corpus": corpus, "trust_remote_code": trust},
        "warmup": {
            "context": {key: tree["context"][key] for key in ("window", "target_length")},
            "rope": tree["rope"],
            "training": recipe.score and tree["score"]["warmup"],
            "seed": recipe.seed,
            "trust_remote_code": trust,
        },
        "score": {
            "score": recipe.score and {k: v for k, v in tree["score"].items() if k not in ("model", "warmup")},
            "window": recipe.context.window,
            "seed": recipe.seed,
            "trust_remote_code": trust,
            "extended_trust_remote_code": bool(
                recipe.score and recipe.score.model and recipe.score.model.trust_remote_code
            ),
        },
        "index": {
            **{key: tree[key] for key in ("context", "selection", "positions", "index", "seed")},
            "mixture": mixture,
            "trust_remote_code": trust,
        },
        "extend": {
            "context": tree["context"],
            "rope": tree["rope"],
            "training": tree["extend"],
            "seed": recipe.seed,
            "trust_remote_code": trust,
        },
        "replay": {
            "sources": [reading(source) for source in recipe.replay.sources],
            "separator": recipe.replay.separator,
            "train_length": recipe.context.train_length,
            "seed": recipe.seed,
            "trust_remote_code": trust,
        },
        "anneal": {
            "training": tree["anneal"],
            "train_length": recipe.context.train_length,
            "loss_on_prompt": recipe.replay.loss_on_prompt,
            "attention_across_samples": recipe.replay.attention_across_samples,
            "seed": recipe.seed,
            "trust_remote_code": trust,
        },
        "merge": {"merge": tree["merge"]},
        "evaluate": {
            "evaluation": evaluation,
            "context": tree["context"],
            "rope": tree["rope"],
            "seed": recipe.seed,
            "trust_remote_code": trust,
        },
        "report": {"name": recipe.name},
        "measure": measured,
        "measure_rope": measured | {"rope": tree["rope"]},
    }
    return parts[stage]


def measures(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What is measured; a file of questions enters by its digest.

    A measure that is not taken is left out: results that were made before there was it stay valid.
    """
    kept = {
        key: value for key, value in evaluation.items() if value is not None or key in ("minimum_length", "passkey")
    }
    if "ruler" in kept:
        files = {key: kept["ruler"][key] for key in ("squad", "hotpotqa")}
        kept["ruler"] |= {key: file and {"sha256": file["sha256"]} for key, file in files.items()}
        kept["ruler"]["prompts"] = RULER_PROMPTS
    if "stages" in kept:
        kept["stages"] = [stage for stage in OWN_MODELS if stage in kept["stages"]]  # in whatever order it was given
    if "models" in kept:
        # Those with a path enter by content, as inputs of the stage.
        kept["models"] = [
            {"name": model["name"], "rope": model["rope"], "own": model["path"] is None} for model in kept["models"]
        ]
    if "benchmarks" in kept:
        # Tasks of one's own enter by content, as an input of the stage.
        kept["benchmarks"] = {
            key: value
            for key, value in kept["benchmarks"].items()
            if key not in ("include_path", "batch_size", "confirm_unsafe")
        }
    return kept


def reading(source: SourceSection) -> dict[str, Any]:
    """How a source is read, without where it is: path, revision and tokenizer enter by their content."""
    kept = source.model_dump(mode="json", exclude={"path", "revision", "tokenizer", "weight"})
    if kept.get("validation_share") is None:
        kept.pop("validation_share", None)  # results that were made before there was this key stay valid
    return kept
