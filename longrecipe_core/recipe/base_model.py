"""The base model that a recipe trains on the spot."""

from typing import Self

from pydantic import Field, model_validator

from longrecipe_core.recipe.copying import CopiesSection, MinimumCopyingSection
from longrecipe_core.recipe.sections import Section, TrainingSection


class BaseSection(Section):
    """A small Llama and its own BPE tokenizer, trained on the spot from `corpus` (demo and tests)."""

    vocabulary_size: int = Field(512, ge=300, description="BPE entries, special ones included")
    hidden_size: int = Field(128, ge=8, description="width of a token's vector")
    intermediate_size: int = Field(344, ge=8, description="width inside an MLP")
    layers: int = Field(4, ge=1, description="decoder layers")
    query_heads: int = Field(4, ge=1, description="attention heads of the queries; hidden_size is split over them")
    kv_heads: int = Field(4, ge=1, description="attention heads of keys and values; divides query_heads")
    window: int = Field(256, ge=8, description="context window of the base model, tokens")
    rope_theta: float = Field(10_000.0, gt=1, description="base frequency of the rotary positions")
    training: TrainingSection = Field(description="how the base model is trained")
    copies: CopiesSection | None = Field(None, description="put copies into its sequences; plain text when not given")
    minimum_copying: MinimumCopyingSection | None = Field(
        None, description="refuse a base that copies less; not measured when not given"
    )

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.hidden_size % (2 * self.query_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be an even multiple of query_heads {self.query_heads}"
            )
        if self.query_heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide query_heads {self.query_heads}")
        if self.training.lora is not None:
            raise ValueError("training.lora would freeze the random weights that the base starts from; allowed: null")
        if self.copies is not None and 2 * self.copies.span[1] > self.window:
            raise ValueError(
                f"copies.span {list(self.copies.span)}: twice {self.copies.span[1]} tokens don't fit window "
                f"{self.window}"
            )
        if self.copies is not None and self.training.steps is None:
            raise ValueError("training.steps is missing: copies change from the first step to the last")
        if self.minimum_copying is not None and self.minimum_copying.length > self.window:
            raise ValueError(
                f"minimum_copying: distance {max(self.minimum_copying.distances)} and two spans of "
                f"{self.minimum_copying.span} make a prompt of {self.minimum_copying.length} tokens, above window "
                f"{self.window}"
            )
        return self
