"""The one pydantic schema: YAML and overrides in, resolved YAML out."""

from longrecipe_core.recipe.changes import changed_keys
from longrecipe_core.recipe.checks import check_inputs
from longrecipe_core.recipe.evaluation import (
    ContextNllSection,
    EvaluationSection,
    LongPplSection,
    NeedleSection,
    PasskeySection,
    QuestionsSection,
    RulerSection,
)
from longrecipe_core.recipe.launch import LaunchSection
from longrecipe_core.recipe.parts import stage_part
from longrecipe_core.recipe.schema import Recipe
from longrecipe_core.recipe.sections import (
    BaseSection,
    ContextSection,
    CorpusSection,
    CorpusSourceSection,
    IndexSection,
    LoraSection,
    MergeSection,
    ModelSection,
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
    "ContextNllSection",
    "ContextSection",
    "CorpusSection",
    "CorpusSourceSection",
    "EvaluationSection",
    "IndexSection",
    "LaunchSection",
    "LongPplSection",
    "LoraSection",
    "MergeSection",
    "ModelSection",
    "NeedleSection",
    "PasskeySection",
    "PositionsSection",
    "PromotionSection",
    "QuestionsSection",
    "Recipe",
    "ReplaySection",
    "RopeSection",
    "RulerSection",
    "ScoreSection",
    "SelectionSection",
    "SourceSection",
    "TrainingSection",
    "UpsamplingSection",
    "changed_keys",
    "check_inputs",
    "stage_part",
]
