"""What an evaluation is told: one resolved JSON file."""

from pathlib import Path

from pydantic import Field

from longrecipe_core.recipe import EvaluationSection, RopeSection
from longrecipe_core.recipe.sections import Section


class EvaluatedModel(Section):
    """One model to measure."""

    name: str
    directory: Path
    rope: RopeSection | None = Field(None, description="baked in before loading, with no training")
    own_window: bool = Field(False, description="the RoPE change starts from this model's window, not from the job's")


class EvaluationJob(Section):
    """Every model on the same documents and prompts."""

    models: tuple[EvaluatedModel, ...]
    evaluator: EvaluatedModel | None = Field(
        None, description="finds the key tokens of LongPPL, where that is measured; each model its own when not given"
    )
    tokens: Path
    evaluation: EvaluationSection
    window: int | None
    target_length: int
    seed: int
    trust_remote_code: bool = False
    threads: int | None = None
    loss_chunk: int = 512
    measurements: Path = Field(description="what is measured is noted there, and found again after a kill")
    output: Path
