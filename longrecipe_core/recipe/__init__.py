"""The one pydantic schema: YAML and overrides in, resolved YAML out."""

from longrecipe_core.recipe.base_model import BaseSection
from longrecipe_core.recipe.benchmarks import BenchmarksSection
from longrecipe_core.recipe.changes import changed_keys
from longrecipe_core.recipe.checks import check_inputs
from longrecipe_core.recipe.copying import CopiesSection, CopyingSection, MinimumCopyingSection
from longrecipe_core.recipe.evaluated_models import OWN_MODELS, EvaluatedStage, OtherModelSection
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
    "OWN_MODELS",
    "BaseSection",
    "BenchmarksSection",
    "ContextNllSection",
    "ContextSection",
    "CopiesSection",
    "CopyingSection",
    "CorpusSection",
    "CorpusSourceSection",
    "EvaluatedStage",
    "EvaluationSection",
    "IndexSection",
    "LaunchSection",
    "LongPplSection",
    "LoraSection",
    "MergeSection",
    "MinimumCopyingSection",
    "ModelSection",
    "NeedleSection",
    "OtherModelSection",
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
