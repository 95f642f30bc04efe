"""What an evaluation comes to: loss inside the base model's window against loss beyond it."""

import json

from longrecipe_core.artifacts import ArtifactRef
from longrecipe_core.evaluation.comparison import Scores, scores
from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.sweep import SweptModel, swept_model
from longrecipe_core.evaluation.table import read_rows, text_table
from tasks.evaluation import MEASURED
from tasks.run import Run, fetch_input, run_log


def measured_scores(run: Run, base: ArtifactRef, measured: ArtifactRef) -> Scores:
    """Scores of the model that stage `measure` has measured; logs its table."""
    return scores(_logged_rows(run, measured), MEASURED, old_window(run, base))


def swept(run: Run, base: ArtifactRef, base_weight: float, model: ArtifactRef, measured: ArtifactRef) -> SweptModel:
    """The same of `model`, a merge with that weight of the base model."""
    benchmarks = run.recipe.evaluation.benchmarks
    asked = benchmarks.tasks if benchmarks is not None else ()
    return swept_model(_logged_rows(run, measured), MEASURED, old_window(run, base), base_weight, model.uri, asked)


def _logged_rows(run: Run, measured: ArtifactRef) -> list[Row]:
    rows = read_rows(run.open_store().fetch(measured))
    for line in text_table(rows).splitlines():
        run_log()(line)
    return rows


def old_window(run: Run, base: ArtifactRef) -> int:
    """The base model's window, as the recipe says, else as the config does."""
    recipe = run.recipe
    if recipe.context.window is not None:
        return recipe.context.window
    config = json.loads((fetch_input(run, run.open_store(), "base", base) / "config.json").read_text(encoding="utf-8"))
    return int(config.get("text_config", config)["max_position_embeddings"])
