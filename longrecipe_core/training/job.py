"""What a training job is told: one resolved JSON file, written by the stage and read by every rank."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from longrecipe_core.recipe import CopiesSection, LaunchSection, RopeSection, TrainingSection
from longrecipe_core.recipe.sections import Section


class DataSpec(Section):
    """Where the samples are. Local directories only: credentials never reach a rank."""

    kind: Literal["indexed", "packed", "windows"]
    tokens: Path = Field(description="tokens artifact; for kind packed the packed rows")
    index: Path | None = Field(None, description="index artifact, for kind indexed")
    length: int = Field(description="tokens per sample; shorter rows are padded to it")
    loss_on_prompt: bool = Field(True, description="packed only")
    attention_across_samples: bool = Field(True, description="packed only")
    samples: int | None = Field(None, description="windows only: how many to draw")
    copies: CopiesSection | None = Field(None, description="windows only: put copies into them")
    random_ids: tuple[int, int] | None = Field(None, description="where copies are put: random tokens are from..to - 1")


class TrainingJob(Section):
    """One optimization from start to finish."""

    stage: str
    model: Path = Field(description="local Hugging Face directory to start from")
    trust_remote_code: bool = False
    rope: RopeSection | None = Field(None, description="change to bake in; None: the config is taken as it is")
    window: int | None = Field(None, description="the model's window before the change")
    target_length: int | None = Field(None, description="the window after the change")
    data: DataSpec
    training: TrainingSection
    launch: LaunchSection
    seed: int
    inputs: dict[str, str] = Field(default_factory=dict, description="content of each input, kept in checkpoints")
    checkpoints: Path = Field(description="training checkpoints are kept and looked for here")
    output: Path = Field(description="the finished model is written here")
    logs: Path = Field(description="metrics.jsonl and TensorBoard events go here")
