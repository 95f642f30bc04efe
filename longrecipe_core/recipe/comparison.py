"""A comparison: one shared recipe, and variants of how tokens and positions are chosen, each with several seeds."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe.evaluated_models import OWN_MODELS
from longrecipe_core.recipe.problems import problem_lines
from longrecipe_core.recipe.schema import Recipe, RecipeDumper, read_file
from longrecipe_core.recipe.sections import Section

BASE, STRETCHED = OWN_MODELS["base"], OWN_MODELS["rope"]
"""What the two references are called, beside which no variant may have the name."""
FREE = ("selection", "positions", "score", "index", "context.train_length")
"""What a variant may change: nothing that the base, the tokens or the documents of the evaluation depend on, nor the
optimizer's steps."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Overrides = tuple[str, ...]
Group = Literal["variants", "ablation"]


class ComparisonFile(Section):
    """What stands in the file."""

    name: Name = Field(description="short name, lower case")
    recipe: dict[str, Any] | str = Field(description="the shared recipe, or its file, relative to this one")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        (1, 2, 3), min_length=1, description="of index and training; all else keeps the recipe's own seed"
    )
    variants: dict[Name, Overrides] = Field(
        min_length=1, description="name: overrides as --set takes them; trained once per seed"
    )
    ablation: dict[Name, Overrides] = Field({}, description="as variants, trained with the first seed only")
    reference: Name | None = Field(None, description="the variant that the others are compared with, seed by seed")

    @model_validator(mode="after")
    def _names(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)}: one stands twice, and would count twice")
        for group in ("variants", "ablation"):
            if BASE in getattr(self, group):
                raise ValueError(f"{group}.{BASE}: this is what the untrained model is called; take another name")
        both = self.variants.keys() & self.ablation.keys()
        if both:
            raise ValueError(f"ablation.{min(both)}: a variant has this name; take another")
        if self.reference is not None and self.reference not in self.variants:
            raise ValueError(f"reference {self.reference} is no variant; allowed: {', '.join(self.variants)}")
        return self


class Training(BaseModel):
    """One model of a comparison. `recipe` is the variant's, with the shared seed: what is scored, and how."""

    model_config = ConfigDict(frozen=True)

    group: Group
    variant: str
    seed: int
    recipe: Recipe

    def seeded(self) -> Recipe:
        """The recipe of the stages `index` and `extend`, which alone have the training's seed."""
        return self.recipe.model_copy(update={"seed": self.seed})


class Comparison(BaseModel):
    """A comparison file with its recipes made out."""

    model_config = ConfigDict(frozen=True)

    name: str
    shared: Recipe
    seeds: tuple[int, ...]
    reference: str | None
    variants: dict[str, Recipe]
    ablation: dict[str, Recipe]

    def trainings(self) -> Iterator[Training]:
        """All variants of the first seed, of the second, …; then the ablation."""
        for seed in self.seeds:
            for variant, recipe in self.variants.items():
                yield Training(group="variants", variant=variant, seed=seed, recipe=recipe)
        for variant, recipe in self.ablation.items():
            yield Training(group="ablation", variant=variant, seed=self.seeds[0], recipe=recipe)

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Self:
        """Read a comparison file, by path or fsspec URL; `overrides` change the shared recipe.

        Raises:
            RecipeError: One line per problem, each naming the key and what is allowed.
        """
        tree, where = read_file(path), f"comparison {path}"
        try:
            file = ComparisonFile.model_validate(tree)
        except ValidationError as error:
            lines = problem_lines(ComparisonFile, error, str(path))
            raise RecipeError("\n".join("comparison" + line.removeprefix("recipe") for line in lines)) from error
        given = tuple(overrides)
        shared = _recipe(file.recipe, str(path), given)
        if shared.extend.steps is None:
            raise RecipeError(f"{where}: extend.steps is missing: all variants are trained for equally many steps")
        problems: list[str] = []
        groups: dict[str, dict[str, Recipe]] = {}
        for group, variants in (("variants", file.variants), ("ablation", file.ablation)):
            groups[group] = {}
            for name, own in variants.items():
                own_problems = _forbidden(own)
                if not own_problems:
                    try:
                        recipe = _recipe(file.recipe, str(path), (*given, *own))
                        groups[group][name] = _named(recipe, f"{file.name}.{name}")
                    except RecipeError as error:
                        own_problems = str(error).splitlines()
                problems += [f"{where}: {group}.{name}: {line}" for line in own_problems]
        if problems:
            raise RecipeError("\n".join(problems))
        return cls(
            name=file.name, shared=_named(shared, file.name), seeds=file.seeds, reference=file.reference, **groups
        )


def _forbidden(overrides: Sequence[str]) -> list[str]:
    return [
        f"{override}: a variant may change only {', '.join(FREE)}, so that base, documents and steps are those of all; "
        f"the rest is changed in the shared recipe"
        for override in overrides
        if not any(_key(override) == free or _key(override).startswith(f"{free}.") for free in FREE)
    ]


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _named(recipe: Recipe, name: str) -> Recipe:
    """The name that people see, on the page of a run; it decides no result."""
    return recipe.model_copy(update={"name": name})


def _recipe(source: dict[str, Any] | str, beside: str, overrides: Sequence[str]) -> Recipe:
    if isinstance(source, str):
        alone = "://" in source or os.path.isabs(source)
        return Recipe.load(source if alone else os.path.join(os.path.dirname(beside), source), overrides)
    text = yaml.dump(source, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True)
    return Recipe.parse(text, overrides, f"{beside}: recipe")
