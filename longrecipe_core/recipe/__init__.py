"""The one pydantic schema: YAML and overrides in, resolved YAML out."""

from longrecipe_core.recipe.changes import changed_keys
from longrecipe_core.recipe.checks import check_inputs
from longrecipe_core.recipe.launch import LaunchSection
from longrecipe_core.recipe.parts import stage_part
from longrecipe_core.recipe.schema import Recipe
from longrecipe_core.recipe.sections import (
    BaseSection,
    ContextSection,
    CorpusSection,
    CorpusSourceSection,
    EvaluationSection,
    IndexSection,
    LoraSection,
    MergeSection,
    ModelSection,
    PasskeySection,
    PositionsSection,
    PromotionSection,
    ReplaySection,
    RopeSection,
    ScoreSection,
    SelectionSection,
    SourceSection,
    TrainingSection,
    UpsamplingSection,
)

__all__ = [
    "BaseSection",
    "ContextSection",
    "CorpusSection",
    "CorpusSourceSection",
    "EvaluationSection",
    "IndexSection",
    "LaunchSection",
    "LoraSection",
    "MergeSection",
    "ModelSection",
    "PasskeySection",
    "PositionsSection",
    "PromotionSection",
    "Recipe",
    "ReplaySection",
    "RopeSection",
    "ScoreSection",
    "SelectionSection",
    "SourceSection",
    "TrainingSection",
    "UpsamplingSection",
    "changed_keys",
    "check_inputs",
    "stage_part",
]
