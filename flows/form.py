"""What the form of a deployment needs beside pydantic's schema: bounds that are told, keys that stay in their order."""

from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from longrecipe_core.recipe.document import bounds

Node = dict[str, Any]


class ForPeople:
    """Annotates a parameter's type: in the JSON schemas of the sections in it, help ends with the bounds, which the UI
    holds to and does not show, and each key has its `position`, without which the UI shuffles them.
    """

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> Node:
        """Called by pydantic."""
        node = handler(core_schema)
        self._tell_sections(node, handler)
        return node

    def _tell_sections(self, node: Node, handler: GetJsonSchemaHandler) -> None:
        forms = (node, *node.get("anyOf", ()))
        for form in (*forms, *(form.get("items", {}) for form in forms)):  # a list of sections may be optional, too
            if "$ref" in form:
                for position, field in enumerate(handler.resolve_ref_schema(form)["properties"].values()):
                    field["position"] = position
                    field["description"] = with_bounds(field.get("description", ""), field)
                    self._tell_sections(field, handler)


def with_bounds(text: str, field: Node) -> str:
    """Help with the bounds at its end; once, although several parameters may have the same section."""
    forms = (field, *field.get("anyOf", ()), *field.get("prefixItems", ())[:1], field.get("items", {}))
    told = "".join(f" ({', '.join(found)})" for form in forms if (found := bounds(form)))
    return text if text.endswith(told) else text + told
