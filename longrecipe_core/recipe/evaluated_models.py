"""Which models an evaluation measures: those of the run, and any others."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from longrecipe_core.recipe.sections import RopeSection, Section

EvaluatedStage = Literal["base", "rope", "extend", "anneal", "merge"]

OWN_MODELS: dict[EvaluatedStage, str] = {
    "base": "base",
    "rope": "base, RoPE change only",
    "extend": "stage 0, extended",
    "anneal": "stage 1, annealed",
    "merge": "stage 2, merged",
}
"""What a run's own models are called in the rows of its evaluation, in their order."""


class OtherModelSection(Section):
    """A model that the run does not make, or another RoPE change of the base model, measured beside the run's own."""

    name: str = Field(min_length=1, description="in tables and plots; none of the run's own")
    path: str | None = Field(
        None, min_length=1, description="directory, fsspec URL, hub id or URI of a checkpoint artifact; else the base"
    )
    revision: str | None = Field(None, description="hub branch, tag or commit; resolved to a commit")
    rope: RopeSection | None = Field(
        None, description="RoPE change with no training; a model of its own path starts from its own window"
    )

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if self.path is None and self.rope is None:
            raise ValueError(f"model {self.name!r} is the base model as it is; give it a path, a rope, or both")
        if self.path is None and self.revision is not None:
            raise ValueError(f"model {self.name!r}: revision {self.revision} has no meaning without a path")
        return self


def check_stages(stages: Sequence[EvaluatedStage]) -> None:
    """Raise ValueError where one stands twice."""
    twice = sorted({stage for stage in stages if stages.count(stage) > 1})
    if twice:
        raise ValueError(f"stages: {', '.join(twice)} stands twice; each is measured once")


def check_names(models: Sequence[OtherModelSection]) -> None:
    """Raise ValueError where two models have one name, or one has the name of the run's own."""
    own, seen = {*OWN_MODELS, *OWN_MODELS.values()}, set[str]()
    for model in models:
        if model.name in own:
            raise ValueError(f"models: {model.name!r} is what a model of the run itself is called; choose another name")
        if model.name in seen:
            raise ValueError(f"models: two are called {model.name!r}; each needs a name of its own")
        seen.add(model.name)
