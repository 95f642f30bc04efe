"""The one recipe: sections in, checked combinations out."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import fsspec
import yaml
from pydantic import Field, ValidationError, model_validator

from longrecipe_core.errors import RecipeError
from longrecipe_core.recipe.base_model import BaseSection
from longrecipe_core.recipe.evaluation import EvaluationSection
from longrecipe_core.recipe.launch import LaunchSection
from longrecipe_core.recipe.problems import problem_lines
from longrecipe_core.recipe.sections import (
    ContextSection,
    CorpusSection,
    IndexSection,
    MergeSection,
    ModelSection,
    PositionsSection,
    PromotionSection,
    ReplaySection,
    RopeSection,
    ScoreSection,
    Section,
    SelectionSection,
    TrainingSection,
)


class Recipe(Section):
    """Everything that one run needs to know. YAML in, `section.key=value` overrides, resolved YAML out."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="short name, lower case")
    seed: int = Field(2027, ge=0, description="of every random draw")
    model: ModelSection | None = Field(None, description="a pretrained model; or `base` to train one")
    base: BaseSection | None = Field(None, description="train a small base model first; or `model` to take one")
    context: ContextSection
    rope: RopeSection = RopeSection()
    corpus: CorpusSection
    selection: SelectionSection = SelectionSection()
    score: ScoreSection | None = Field(None, description="how impactful tokens are found; for selection impactful")
    positions: PositionsSection = PositionsSection()
    index: IndexSection = IndexSection()
    extend: TrainingSection = Field(description="stage 0: training at the new window, on skipped positions")
    replay: ReplaySection
    anneal: TrainingSection = Field(description="stage 1: training on replay data")
    merge: MergeSection = MergeSection()
    evaluation: EvaluationSection = EvaluationSection()
    promotion: PromotionSection = PromotionSection()
    launch: LaunchSection = LaunchSection()

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if (self.model is None) == (self.base is None):
            raise ValueError("exactly one of model (a pretrained model) and base (train one) must be given")
        if self.positions.strategy == "full" and self.context.train_length != self.context.target_length:
            raise ValueError(
                f"positions.strategy full trains every position: context.train_length "
                f"{self.context.train_length} must equal context.target_length {self.context.target_length}"
            )
        if self.seed >= 2**63:
            raise ValueError(f"seed {self.seed} is above what random generators take; allowed: 0..{2**63 - 1}")
        target = self.context.target_length
        if self.evaluation.buckets > target:
            raise ValueError(f"evaluation.buckets {self.evaluation.buckets} is above context.target_length {target}")
        if (self.evaluation.minimum_length or 0) > target:
            raise ValueError(
                f"evaluation.minimum_length {self.evaluation.minimum_length} is above context.target_length {target}"
            )
        replicas = self.launch.processes // self.launch.sequence_ranks * self.launch.micro_batch
        stages = [("extend", self.extend), ("anneal", self.anneal)]
        if self.base is not None:
            stages.append(("base.training", self.base.training))
            self.check_heads(self.base.query_heads, "base.query_heads")
        window = self.context.window or (self.base.window if self.base is not None else None)
        if window is not None and self.context.target_length < window:
            raise ValueError(
                f"context.target_length: {self.context.target_length} is below the base model's window {window}; "
                f"allowed: {window} and above"
            )
        self.evaluation.check_lengths(target)
        self.evaluation.check_rope(self.rope)
        if self.positions.strategy == "pose" and self.positions.chunks > self.context.train_length:
            raise ValueError(
                f"positions.chunks {self.positions.chunks} is above context.train_length "
                f"{self.context.train_length}; allowed: 2..{self.context.train_length}"
            )
        self._check_selection()
        if self.launch.parallel not in ("local", "ulysses") and not self.replay.attention_across_samples:
            raise ValueError(
                f"replay.attention_across_samples false has no kernel with launch.parallel {self.launch.parallel}; "
                f"allowed: local, ulysses"
            )
        if self.score is not None and self.score.warmup is not None:
            stages.append(("score.warmup", self.score.warmup))
        for name, training in stages:
            if training.lora is not None and self.launch.sharding == "zero3":
                raise ValueError(f"{name}.lora has never run with launch.sharding zero3; allowed with it: none, fsdp2")
            if training.global_batch % replicas:
                raise ValueError(
                    f"{name}.global_batch {training.global_batch} is not a multiple of {replicas}, the sequences "
                    f"that launch.processes, sequence_degree and micro_batch compute at a time"
                )
        return self

    def _check_selection(self) -> None:
        context, positions, score = self.context, self.positions, self.score
        if (self.selection.strategy == "impactful") != (score is not None):
            raise ValueError(
                f"selection.strategy impactful and a section score go together; got strategy "
                f"{self.selection.strategy} and score {'given' if score else 'not given'}"
            )
        if positions.strategy == "gather" and self.selection.strategy != "none":
            raise ValueError(
                f"positions.strategy gather reads the tokens at the drawn positions, so there is nothing to select: "
                f"selection.strategy {self.selection.strategy} must be none"
            )
        if positions.strategy == "longrecipe-fixed" and positions.right_point > context.train_length:
            raise ValueError(
                f"positions.right_point {positions.right_point} is above context.train_length {context.train_length}; "
                f"allowed: 1..{context.train_length}"
            )
        if positions.strategy == "cream":
            room = (context.train_length - 1) // 2
            if room < max(1, positions.cream_head or 1):
                raise ValueError(
                    f"positions.cream_head {positions.cream_head}: head, middle and tail don't fit "
                    f"context.train_length {context.train_length}; allowed: 1..{room}"
                )
        if score is not None and (score.length or 0) > context.target_length:
            raise ValueError(f"score.length {score.length} is above context.target_length {context.target_length}")
        self._check_lengths_of_documents()

    def _check_lengths_of_documents(self) -> None:
        """Filters and up-sampling that leave nothing to train, score or evaluate on."""
        context, corpus, score = self.context, self.corpus, self.score
        needed = {
            "context.train_length": context.train_length,
            "evaluation.minimum_length (by default the target length)": self.evaluation.minimum_length
            or context.target_length,
            "score.length": (score.length if score else None) or 0,
            "context.target_length, which a warm-up trains at": context.target_length if score and score.warmup else 0,
        }
        most = corpus.maximum_tokens
        for key, length in needed.items():
            if most is not None and most < length:
                raise ValueError(
                    f"corpus.maximum_tokens {most} is below {length}, {key}: no document would be long enough"
                )
        if corpus.upsampling is None:
            return
        longer = corpus.upsampling.longer_than
        if longer < context.train_length:
            raise ValueError(
                f"corpus.upsampling.longer_than {longer} is below context.train_length {context.train_length}: every "
                f"document that is long enough to train on would count as long"
            )
        if most is not None and longer >= most:
            raise ValueError(
                f"corpus.upsampling.longer_than {longer} is not below corpus.maximum_tokens {most}: no document would "
                f"count as long"
            )

    def check_heads(self, query_heads: int, origin: str) -> None:
        """Raise ValueError where the ranks can't split `query_heads` among them (traps, 9)."""
        degree = self.launch.head_ranks
        if query_heads % degree:
            raise ValueError(
                f"launch.parallel {self.launch.parallel}: {degree} ranks can't split the {query_heads} query heads of "
                f"{origin}; allowed: {', '.join(str(d) for d in range(1, query_heads + 1) if query_heads % d == 0)} "
                f"ranks, or ring, or usp with such a ulysses_degree"
            )

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Self:
        """Read a recipe file, by path or fsspec URL, and apply `section.key=value` overrides, whose values are YAML.

        Raises:
            RecipeError: one line per problem, each naming the key and what is allowed.
        """
        return cls._of_tree(read_file(path), overrides, str(path))

    @classmethod
    def assemble(cls, path: str | Path | None, groups: Mapping[str, Any], overrides: Iterable[str] = ()) -> Self:
        """As `load`; values of `groups` (sections, or plain values) replace those of the file, if there is one.

        Raises:
            RecipeError: As `load`.
        """
        given = {name: value.model_dump() if isinstance(value, Section) else value for name, value in groups.items()}
        if path is None:
            return cls._of_tree(given, overrides, "from the parameters")
        return cls._of_tree(read_file(path) | given, overrides, str(path))

    @classmethod
    def parse(cls, text: str, overrides: Iterable[str] = (), origin: str = "recipe") -> Self:
        """As `load`, from YAML text; `origin` names it in messages."""
        return cls._of_tree(_read_tree(text, origin), overrides, origin)

    @classmethod
    def _of_tree(cls, tree: dict[str, Any], overrides: Iterable[str], origin: str) -> Self:
        tree = _unshared(tree)
        for override in overrides:
            _apply(tree, override)
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise RecipeError("\n".join(problem_lines(cls, error, origin))) from error

    def to_yaml(self) -> str:
        """The resolved recipe: every key, with its default where none was given."""
        tree = self.model_dump(mode="json")
        return yaml.dump(tree, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True, width=110)


class RecipeLoader(yaml.SafeLoader):
    """YAML 1.1 reads `5e-5` as text and keeps the last of two equal keys; here it is a number, and an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raise on a key that stands twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class RecipeDumper(yaml.SafeDumper):
    """Quotes text that would not be read as it was: a commit 12e4567 as a number, U+0085 as a line break."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Unprintable characters as escapes."""
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


RecipeDumper.add_representer(str, RecipeDumper.represent_str)


# YAML 1.1 wants a dot in a number with an exponent, people don't.
_EXPONENT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _side in (RecipeLoader, RecipeDumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def read_file(path: str | Path) -> dict[str, Any]:
    """Keys and values of a YAML file, by path or fsspec URL. Raises RecipeError where there are none."""
    if "@" in urlsplit(str(path)).netloc:
        raise RecipeError("recipe: credentials don't belong in a URL; put them into the environment")
    try:
        with fsspec.open(str(path), encoding="utf-8", mode="rt") as file:
            text = file.read()
    except Exception as error:  # clients of object stores raise their own
        raise RecipeError(f"recipe {path}: can't be read: {error}") from error
    return _read_tree(text, str(path))


def _read_tree(text: str, origin: str) -> dict[str, Any]:
    tree = _read_yaml(text, f"recipe {origin}:")
    if not isinstance(tree, dict):
        raise RecipeError(f"recipe {origin}: must hold keys and values, found {type(tree).__name__}")
    return tree


def _read_yaml(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=RecipeLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        # PyYAML lets Python's own errors through: the date 2020-13-45, a list as a key, brackets 1,000 deep.
        raise RecipeError(f"{origin} not YAML: {' '.join(str(error).split())}") from error


def _unshared(node: Any) -> Any:
    """A copy in which no two keys have the same object, as YAML's aliases do: an override of one would change both."""
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    path = key.strip().split(".")
    if not separator or not all(path):
        raise RecipeError(f"--set {override}: must read section.key=value")
    node: Any = tree
    for depth, name in enumerate(path[:-1]):
        node = _step(node, name, override, ".".join(path[: depth + 1]))
    parsed = _read_yaml(value, f"--set {override}: {value!r} is")
    if isinstance(node, list):
        node[_position(node, path[-1], override)] = parsed
    else:
        node[path[-1]] = parsed


def _step(node: Any, name: str, override: str, where: str) -> Any:
    if isinstance(node, list):
        return node[_position(node, name, override)]
    if node.get(name) is None:
        node[name] = {}
    if not isinstance(node[name], dict | list):
        raise RecipeError(f"--set {override}: {where} is a value, not a section")
    return node[name]


def _position(node: list[Any], name: str, override: str) -> int:
    if not name.isdecimal() or int(name) >= len(node):
        raise RecipeError(f"--set {override}: {name} is not an entry of this list; allowed: 0..{len(node) - 1}")
    return int(name)
