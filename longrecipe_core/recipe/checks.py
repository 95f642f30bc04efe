"""What can be told before anything runs, but only by looking at files: each finding is one line."""

import glob
import importlib.util
import json
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe.launch import LaunchSection
from longrecipe_core.recipe.schema import Recipe
from longrecipe_core.recipe.sections import SourceSection

ENGINE_VARIABLE = "LONGRECIPE_ENGINE"
ENGINES = ("processes", "ray")


def check_inputs(recipe: Recipe) -> None:
    """Raise RecipeError, a line per problem, where a local file is missing or the base model doesn't fit.

    Remote URLs and hub ids are looked at by the stage that reads them.
    """
    problems = [*_missing_sources(recipe), *_missing_questions(recipe)]
    scored = recipe.score.model if recipe.score else None
    paths: dict[str, str | None] = {
        "model.path": recipe.model.path if recipe.model else None,
        "score.model.path": scored.path if scored else None,
    }
    paths |= {f"evaluation.models.{at}.path": model.path for at, model in enumerate(recipe.evaluation.models or ())}
    for key, path in paths.items():
        if path is None:
            continue
        directory = Path(path).expanduser()
        if directory.is_dir():
            problems += _model_problems(recipe, directory, key)
        elif path.startswith(("/", ".", "~", "models/")):
            problems.append(f"{key}: {path} is not a directory")
    if recipe.base is not None and recipe.context.window not in (None, recipe.base.window):
        problems.append(f"context.window: {recipe.context.window} is not base.window; allowed: {recipe.base.window}")
    for check in (chosen_engine, check_sharding):
        try:
            check(recipe.launch)
        except RecipeError as error:
            problems.append(str(error))
    problems += _missing_peft(recipe)
    if recipe.evaluation.benchmarks is not None and importlib.util.find_spec("lm_eval") is None:
        problems.append("evaluation.benchmarks: lm-eval is not installed; pip install '.[eval]'")
    if problems:
        raise RecipeError("\n".join(f"recipe {recipe.name}: {problem}" for problem in problems))


def chosen_engine(launch: LaunchSection) -> str:
    """What runs the shards: as the recipe says, else the environment, else processes.

    Raises:
        RecipeError: The environment names none that there is, or it is not installed.
    """
    name = launch.engine or os.environ.get(ENGINE_VARIABLE) or "processes"
    if name not in ENGINES:
        raise RecipeError(f"{ENGINE_VARIABLE}={name} in the environment: no such engine; allowed: {', '.join(ENGINES)}")
    if name == "ray" and importlib.util.find_spec("prefect_ray") is None:
        raise RecipeError("launch.engine: ray is not installed; pip install '.[ray]'")
    return name


def check_sharding(launch: LaunchSection) -> None:
    """Raise RecipeError where what shards the model is not installed."""
    if launch.sharding == "zero3" and importlib.util.find_spec("deepspeed") is None:
        raise RecipeError("launch.sharding: zero3 needs deepspeed: pip install '.[deepspeed]', or choose fsdp2")


def _missing_peft(recipe: Recipe) -> Iterator[str]:
    trainings = {
        "extend": recipe.extend,
        "anneal": recipe.anneal,
        "score.warmup": recipe.score.warmup if recipe.score else None,
    }
    adapted = [f"{name}.lora" for name, training in trainings.items() if training and training.lora]
    if adapted and importlib.util.find_spec("peft") is None:
        yield f"{', '.join(adapted)}: peft is not installed; pip install '.[lora]'"


def _missing_sources(recipe: Recipe) -> Iterator[str]:
    groups: list[tuple[str, tuple[SourceSection, ...]]] = [
        ("corpus.sources", recipe.corpus.sources),
        ("replay.sources", recipe.replay.sources),
    ]
    for name, sources in groups:
        for number, source in enumerate(sources):
            if source.format == "hub" or "://" in source.path:
                continue
            path = os.path.expanduser(source.path.replace("{stdlib}", sysconfig.get_path("stdlib")))
            if not os.path.exists(path) and next(glob.iglob(path, recursive=True), None) is None:
                yield f"{name}.{number}.path: no file at {source.path}"


def _missing_questions(recipe: Recipe) -> Iterator[str]:
    for key in ("squad", "hotpotqa"):
        file = getattr(recipe.evaluation.ruler, key, None)
        if file is not None and not Path(file.path).expanduser().is_file():
            yield f"evaluation.ruler.{key}.path: no file at {file.path}"
    tasks = recipe.evaluation.benchmarks and recipe.evaluation.benchmarks.include_path
    if tasks and not Path(tasks).expanduser().is_dir():
        yield f"evaluation.benchmarks.include_path: {tasks} is not a directory"


def _model_problems(recipe: Recipe, directory: Path, key: str) -> list[str]:
    path = directory / "config.json"
    if not path.is_file():
        return [f"{key}: {directory} holds no config.json"]
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        return [f"{key}: {path} is not JSON: {error}"]
    problems: list[str] = []
    if key != "model.path":
        return problems  # only the base model is trained
    heads = config.get("num_attention_heads")
    if isinstance(heads, int):
        try:
            recipe.check_heads(heads, f"{directory}")
        except ValueError as error:
            problems.append(str(error))
    window = recipe.context.window or config.get("max_position_embeddings")
    if isinstance(window, int) and recipe.context.target_length < window:
        problems.append(
            f"context.target_length: {recipe.context.target_length} is below the base model's window {window}; "
            f"allowed: {window} and above"
        )
    return problems
