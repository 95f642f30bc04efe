"""The one pydantic schema: YAML and overrides in, resolved YAML out."""

from longrecipe_core.recipe.checks import check_inputs
from longrecipe_core.recipe.parts import stage_part
from longrecipe_core.recipe.schema import Recipe
from longrecipe_core.recipe.sections import (
    BaseSection,
    ContextSection,
    CorpusSection,
    EvaluationSection,
    IndexSection,
    LaunchSection,
    MergeSection,
    ModelSection,
    PasskeySection,
    PositionsSection,
    ReplaySection,
    RopeSection,
    SelectionSection,
    SourceSection,
    TrainingSection,
)

__all__ = [
    "BaseSection",
    "ContextSection",
    "CorpusSection",
    "EvaluationSection",
    "IndexSection",
    "LaunchSection",
    "MergeSection",
    "ModelSection",
    "PasskeySection",
    "PositionsSection",
    "Recipe",
    "ReplaySection",
    "RopeSection",
    "SelectionSection",
    "SourceSection",
    "TrainingSection",
    "check_inputs",
    "stage_part",
]
