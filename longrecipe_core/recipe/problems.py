"""Pydantic's findings as lines that a person can act on."""

import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo


def problem_lines(model: type[BaseModel], error: ValidationError, origin: str) -> list[str]:
    """One line per problem: the recipe, the key, the value found, what is allowed."""
    lines = []
    found = error.errors()
    for item in found:
        location = [part for part in item["loc"] if not str(part).startswith("function-")]
        if item["type"] == "too_short" and any(
            other["loc"][: len(item["loc"])] == item["loc"] for other in found if other is not item
        ):
            continue  # the list is only short because one of its entries is wrong, which is told by itself
        key = ".".join(str(part) for part in location) or "combination"
        given = item["input"]
        if item["type"] == "extra_forbidden":
            section = _section(model, location[:-1])
            allowed = ", ".join(section.model_fields) if section else "see docs/recipe.md"
            lines.append(f"recipe {origin}: {key}: unknown key; allowed: {allowed}")
        elif item["type"] == "missing":
            field = _field(model, location)
            meaning = f" ({field.description})" if field is not None and field.description else ""
            lines.append(f"recipe {origin}: {key}: missing, and has no default{meaning}")
        elif item["type"] == "value_error":
            lines.append(f"recipe {origin}: {key}: {item['ctx']['error']}")
        else:
            lines.append(f"recipe {origin}: {key}: {given!r} is not allowed: {item['msg']}")
    return lines


def _section(model: type[BaseModel], location: list[Any]) -> type[BaseModel] | None:
    if not location:
        return model
    field = _field(model, location)
    return _model_in(field.annotation) if field is not None else None


def _field(model: type[BaseModel], location: list[Any]) -> FieldInfo | None:
    field: FieldInfo | None = None
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(str(part))
        if field is None:
            return None
        model = _model_in(field.annotation) or model
    return field


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple, list):
        for argument in typing.get_args(annotation):
            found = _model_in(argument)
            if found is not None:
                return found
    return None
