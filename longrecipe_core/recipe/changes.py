"""How one stage's part of a recipe differs from another, in the words of the recipe's own file."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

LONGEST_VALUE = 60
ABSENT = object()

# Keys of `stage_part` that stand elsewhere in a recipe; all others stand where the part has them.
_EVERYWHERE = {
    "trust_remote_code": "model.trust_remote_code",
    "extended_trust_remote_code": "score.model.trust_remote_code",
    "train_length": "context.train_length",
    "window": "context.window",
    "sources": "replay.sources",
    "separator": "replay.separator",
    "target_length": "context.target_length",
    "loss_on_prompt": "replay.loss_on_prompt",
    "attention_across_samples": "replay.attention_across_samples",
    "mixture.upsampling": "corpus.upsampling",
}
_TRAINING = {"extend": "extend", "anneal": "anneal", "warmup": "score.warmup"}


def changed_keys(stage: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One text per key that differs between two parts of `stage`, such as `extend.learning_rate 5e-5 → 1e-5`.

    Keys are named as `--set` takes them. A key that one of the two has not is `absent` there.
    """
    return [
        f"{_recipe_key(stage, key)} {_shown(old)} → {_shown(new)}" for key, old, new in _differences("", before, after)
    ]


def _differences(key: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*after, *before]):
            inside = f"{key}.{name}" if key else name
            yield from _differences(inside, before.get(name, ABSENT), after.get(name, ABSENT))
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) == len(after):
        for at, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{key}.{at}", old, new)
    elif before != after:
        yield key, before, after


def _recipe_key(stage: str, key: str) -> str:
    if key == "training" or key.startswith("training."):
        return _TRAINING[stage] + key.removeprefix("training")
    weight = re.fullmatch(r"mixture\.weights(?:\.(\d+))?", key)
    if weight:
        return f"corpus.sources.{weight[1]}.weight" if weight[1] else "weights of corpus.sources"
    for part, place in _EVERYWHERE.items():
        if key == part or key.startswith(f"{part}."):
            return place + key.removeprefix(part)
    return key


def _shown(value: Any) -> str:
    """A value as YAML has it, on one line, long ones cut."""
    if value is ABSENT:
        return "absent"
    if isinstance(value, float):
        return re.sub(r"e\+?(-?)0*(?=\d)", r"e\1", repr(value))
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    text = text.removesuffix("\n").removesuffix("\n...")
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
