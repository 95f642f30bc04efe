"""Copying: how it is measured, and how a small base model comes to it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from longrecipe_core.recipe.sections import Fraction, Section

CUE = 4
"""Tokens at the start of a copy that are given, not asked for: nothing before them tells that a copy begins."""


class CopyingSection(Section):
    """A span of random tokens, a piece of a validation document, the span again: how much of it is foretold."""

    distances: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = Field(
        description="tokens between the span and its copy"
    )
    span: int = Field(16, gt=CUE, description="tokens of the span; the first 4 of the copy are a cue and not counted")
    samples: int = Field(64, ge=2, description="per distance")

    @property
    def length(self) -> int:
        """Tokens of the longest prompt, without what a tokenizer puts in front."""
        return 2 * self.span + max(self.distances)


class MinimumCopyingSection(CopyingSection):
    """What the trained base must copy, at each of these distances of its window; it is refused where it does not."""

    accuracy: Fraction = Field(0.9, description="least share of the copied tokens, at each distance")


class CopiesSection(Section):
    """Sequences of the base's training that hold copies of a span of theirs: it learns to retrieve from them."""

    share: Fraction = Field(0.5, description="of the training sequences have copies")
    span: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (12, 100), description="tokens that are copied, [least, most]"
    )
    far_share: Fraction = Field(
        0.5,
        description="of those with copies have one, whole, at any distance that the window has room for; in the others "
        "the span is repeated to the end",
    )
    random_share: tuple[Fraction, Fraction] = Field(
        (0.0, 0.5),
        description="of those with copies have a span of random tokens, not of text, [first step, last step]",
    )

    @model_validator(mode="after")
    def _range(self) -> Self:
        least, most = self.span
        if least > most:
            raise ValueError(f"span [{least}, {most}]: the first must not be above the second")
        return self
