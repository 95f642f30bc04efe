"""The recipe's reference as Markdown, made from the schema.

`python -m longrecipe_core.recipe.document` prints it; with a file's name, it is put between the marks there.
"""

import json
import sys
from pathlib import Path
from typing import Any

from longrecipe_core.recipe.schema import Recipe

BEGIN = "<!-- made by python -m longrecipe_core.recipe.document docs/recipe.md: don't edit by hand -->"
END = "<!-- end of what is made -->"
HEAD = "| key | type | default | allowed | meaning |\n|---|---|---|---|---|"
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}

Node = dict[str, Any]


def recipe_reference() -> str:
    """One table per section with every key: type, default, allowed values, meaning; list entries are N.

    A section that stands at several places, such as `extend` and `anneal`, has one table under all its names.
    """
    schema = Recipe.model_json_schema()
    sections: Node = schema["$defs"]
    places: dict[str, list[str]] = {}
    _find_places(schema, sections, "", places)
    parts = ["### Top level", _table(schema, sections)]
    for name, paths in places.items():
        parts += [
            "### " + ", ".join(f"`{path}`" for path in paths),
            sections[name]["description"].replace("\n", " "),
            _table(sections[name], sections),
        ]
    return "\n\n".join(parts) + "\n"


def put_into(text: str) -> str:
    """`text` with the reference between its two marks.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the reference: it stands between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{recipe_reference()}\n{END}{after}"


def _find_places(node: Node, sections: Node, prefix: str, places: dict[str, list[str]]) -> None:
    for key, field in node["properties"].items():
        name, is_list = _section_of(field)
        if name is not None:
            path = f"{prefix}{key}.N" if is_list else f"{prefix}{key}"
            places.setdefault(name, []).append(path)
            _find_places(sections[name], sections, f"{path}.", places)


def _section_of(field: Node) -> tuple[str | None, bool]:
    """The section that a field holds, if any, and whether it holds a list of them."""
    for form in (field, *field.get("anyOf", ())):
        if "$ref" in form:
            return str(form["$ref"]).rpartition("/")[2], False
        if "$ref" in form.get("items", {}):
            return str(form["items"]["$ref"]).rpartition("/")[2], True
    return None, False


def _table(node: Node, sections: Node) -> str:
    rows = [HEAD]
    for key, field in node["properties"].items():
        name, _ = _section_of(field)
        meaning = field.get("description") or (sections[name]["description"] if name is not None else "")
        default = "required" if key in node.get("required", ()) else _default(field, name)
        cells = [f"`{key}`", _type(field), default, _allowed(field), meaning.replace("\n", " ")]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _default(field: Node, section: str | None) -> str:
    if section is not None and field.get("default") is not None:
        return "the section's defaults"
    return f"`{json.dumps(field.get('default'))}`"


def _type(field: Node) -> str:
    name, is_list = _section_of(field)
    if "anyOf" in field:
        return " or ".join("null" if form.get("type") == "null" else _type(form) for form in field["anyOf"])
    if name is not None:
        return "list of sections" if is_list else "section"
    if field["type"] == "array":
        pair = field.get("prefixItems")
        return f"list of {len(pair)}: {_type(pair[0])}" if pair else f"list: {_type(field['items'])}"
    return TYPES[field["type"]]


def _allowed(field: Node) -> str:
    rules = []
    for form in (field, *field.get("anyOf", ()), *field.get("prefixItems", ())[:1], field.get("items", {})):
        rules += [f"`{value}`" for value in form.get("enum", ())]
        rules += bounds(form)
        if "pattern" in form:
            rules.append(f"matches `{form['pattern']}`")
        if form.get("minLength") or (form.get("minItems") and "prefixItems" not in form):
            rules.append("not empty")
    return ", ".join(rules)


def bounds(form: Node) -> list[str]:
    """The bounds of a number in words, from its JSON schema: `at least 2`."""
    words = {
        "minimum": "at least {:g}",
        "exclusiveMinimum": "above {:g}",
        "maximum": "at most {:g}",
        "exclusiveMaximum": "below {:g}",
    }
    return [text.format(form[bound]) for bound, text in words.items() if bound in form]


def main(arguments: list[str]) -> int:
    """Print the reference, or put it into the file that is named."""
    if not arguments:
        print(recipe_reference(), end="")
        return 0
    path = Path(arguments[0])
    path.write_text(put_into(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
