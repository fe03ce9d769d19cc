"""As much of JSON Schema as the configuration's schema uses; a keyword that is not known here is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
_BOUNDS = {
    "minimum": lambda x, bound: x >= bound,
    "maximum": lambda x, bound: x <= bound,
    "exclusiveMinimum": lambda x, bound: x > bound,
    "exclusiveMaximum": lambda x, bound: x < bound,
}
_SIZES = {
    "minLength": lambda x, bound: len(x) >= bound,
    "maxLength": lambda x, bound: len(x) <= bound,
    "minItems": lambda x, bound: len(x) >= bound,
    "maxItems": lambda x, bound: len(x) <= bound,
}
# Words for people and for OpenAPI; they decide nothing.
_NOTES = {"title", "description", "default", "discriminator"}
_KEYWORDS = {
    *_NOTES, *_BOUNDS, *_SIZES,
    "type", "enum", "const", "pattern", "items", "properties", "additionalProperties", "required", "anyOf", "oneOf",
    "$ref", "$defs",
}  # fmt: skip


class Schema:
    """A schema with its definitions."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        """What a ``$ref`` points at; any other node itself."""
        while "$ref" in node:
            at: Any = self.root
            for part in node["$ref"].removeprefix("#/").split("/"):
                at = at[part]
            node = at
        return node

    def branches(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        """The alternatives of a node, resolved; a node without any is its own."""
        node = self.resolve(node)
        inner = [*node.get("anyOf", ()), *node.get("oneOf", ())]
        return [leaf for branch in inner for leaf in self.branches(branch)] if inner else [node]

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Every schema in the schema, definitions included."""
        waiting = [self.root, *self.root.get("$defs", {}).values()]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += [*node.get("properties", {}).values(), *node.get("anyOf", ()), *node.get("oneOf", ())]
            waiting += [inner for key in ("items", "additionalProperties") if isinstance(inner := node.get(key), dict)]

    def faults(self) -> list[str]:
        """What makes it no schema: unknown keywords and types, references to nothing, bounds that are no numbers."""
        found = []
        for node in self.nodes():
            found += [f"unknown keyword {key}" for key in node if key not in _KEYWORDS]
            kind = node.get("type")
            found += [f"unknown type {kind}"] if kind is not None and kind not in _TYPES else []
            found += [f"empty {key}" for key in ("enum", "anyOf", "oneOf") if node.get(key) == []]
            found += [f"{key} is no number" for key in (*_BOUNDS, *_SIZES) if not isinstance(node.get(key, 0), int | float)]
            found += [f"required {key} is unknown" for key in node.get("required", ()) if key not in node["properties"]]
            try:
                self.resolve(node)
            except (KeyError, TypeError):
                found.append(f"no such definition: {node['$ref']}")
        return found

    def accepts(self, value: Any, node: dict[str, Any] | None = None) -> bool:
        """Whether a value is valid."""
        node = self.resolve(self.root if node is None else node)
        if "type" in node and not _is(value, node["type"]):
            return False
        if ("enum" in node and value not in node["enum"]) or ("const" in node and value != node["const"]):
            return False
        if "anyOf" in node and not any(self.accepts(value, inner) for inner in node["anyOf"]):
            return False
        if "oneOf" in node and sum(self.accepts(value, inner) for inner in node["oneOf"]) != 1:
            return False
        if isinstance(value, dict):
            return self._accepts_object(value, node)
        if isinstance(value, list):
            return _fits(value, node, _SIZES) and all(self.accepts(item, node.get("items", {})) for item in value)
        if isinstance(value, str):
            return _fits(value, node, _SIZES) and bool(re.search(node.get("pattern", ""), value))
        return not _is(value, "number") or _fits(value, node, _BOUNDS)

    def _accepts_object(self, value: dict[str, Any], node: dict[str, Any]) -> bool:
        known, others = node.get("properties", {}), node.get("additionalProperties", True)
        if any(key not in value for key in node.get("required", ())):
            return False
        for key, inner in value.items():
            schema = known.get(key, others)
            if schema is False or (isinstance(schema, dict) and not self.accepts(inner, schema)):
                return False
        return True


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _fits(value: Any, node: dict[str, Any], rules: dict[str, Any]) -> bool:
    return all(rule(value, node[key]) for key, rule in rules.items() if key in node)
