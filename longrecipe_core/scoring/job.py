"""What a scoring is told: one resolved JSON file."""

from pathlib import Path

from pydantic import Field

from longrecipe_core.recipe import LaunchSection, ScoreSection
from longrecipe_core.recipe.sections import Section


class ScoringJob(Section):
    """One comparison over sample documents."""

    base: Path = Field(description="directory of the base model H and its tokenizer")
    extended: Path | None = Field(None, description="directory of the extended model H'; none for source long-short")
    tokens: Path = Field(description="tokens artifact, whose train split is read")
    score: ScoreSection
    length: int = Field(description="tokens of each document")
    short_length: int | None = Field(None, description="long-short: most tokens of the truncated context")
    window: int = Field(description="the base model's window")
    seed: int
    base_trust: bool = Field(False, description="run Python code that comes with the base model")
    extended_trust: bool = Field(False, description="run Python code that comes with the extended model")
    launch: LaunchSection
    output: Path = Field(description="the impact artifact is written here")
    metrics: Path = Field(description="figures for the manifest are written here, as JSON")
