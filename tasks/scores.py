"""What an evaluation comes to: loss inside the base model's window against loss beyond it."""

import json

from longrecipe_core.artifacts import ArtifactRef
from longrecipe_core.evaluation.comparison import Scores, scores
from longrecipe_core.evaluation.table import read_rows, text_table
from tasks.evaluation import MEASURED
from tasks.run import Run, fetch_input, run_log


def measured_scores(run: Run, base: ArtifactRef, measured: ArtifactRef) -> Scores:
    """Scores of the model that stage `measure` has measured; logs its table."""
    rows = read_rows(run.open_store().fetch(measured))
    for line in text_table(rows).splitlines():
        run_log()(line)
    return scores(rows, MEASURED, _window(run, base))


def _window(run: Run, base: ArtifactRef) -> int:
    """The base model's, as the recipe says, else as the config does."""
    recipe = run.recipe
    if recipe.context.window is not None:
        return recipe.context.window
    config = json.loads((fetch_input(run, run.open_store(), "base", base) / "config.json").read_text(encoding="utf-8"))
    return int(config.get("text_config", config)["max_position_embeddings"])
