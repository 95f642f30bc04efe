"""Public benchmarks, which EleutherAI's lm-eval takes."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from longrecipe_core.recipe.sections import Section


class BenchmarksSection(Section):
    """Benchmarks by lm-eval (extra `eval`); see docs/public-benchmarks.md."""

    tasks: tuple[Annotated[str, Field(pattern=r"^\S+$")], ...] = Field(
        min_length=1, description="lm-eval's names of tasks, groups and tags: mmlu, gsm8k, …"
    )
    include_path: str | None = Field(
        None,
        min_length=1,
        description="local directory with tasks of one's own, as lm-eval has it; known by the content of its files",
    )
    limit: int | None = Field(None, ge=1, description="the first samples of each task; all when not given")
    fewshot: int | None = Field(None, ge=0, description="examples before a question; as the task has it when not given")
    max_gen_toks: int | None = Field(
        None, ge=1, description="tokens of a generated answer, at most; as the task has it when not given"
    )
    lengths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = Field(
        None, description="lm-eval's RULER: tokens of its prompts; 4096 when not given"
    )
    batch_size: int = Field(1, ge=1, description="samples that are computed together")
    confirm_unsafe: bool = Field(False, description="run code that a model writes, as HumanEval does, on this machine")

    @field_validator("include_path")
    @classmethod
    def _home(cls, path: str | None) -> str | None:
        """lm-eval takes `~` as it stands, finds no task there, and goes on with its own of the same name."""
        return str(Path(path).expanduser()) if path is not None and path.startswith("~") else path

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.limit is not None and len(self.lengths or ()) > 1:
            raise ValueError(
                f"limit {self.limit} takes the first samples, which are all of length {(self.lengths or (0,))[0]}: "
                f"give lengths one entry, or no limit"
            )
        return self

    @model_validator(mode="after")
    def _once(self) -> Self:
        twice = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        if twice:
            raise ValueError(f"tasks: {', '.join(twice)} stands twice; each is measured once")
        return self
