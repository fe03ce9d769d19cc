"""YAML read safely: plain data only, no aliases, no duplicate keys, no depth, numbers and booleans as in YAML 1.2."""

from __future__ import annotations

import re
from typing import Any

import yaml

from .errors import ConfigError

MAX_DEPTH = 20
MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """SafeLoader that rejects aliases, duplicate keys and depth, and reads numbers and booleans as YAML 1.2 does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ConfigError(
                f"line {self.peek_event().start_mark.line + 1}: YAML aliases (*) are not accepted; write the value out"
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"line {self.peek_event().start_mark.line + 1}: nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConfigError(f"line {line}: keys must be words, got {key!r}")
            if key in seen:
                raise ConfigError(f"line {line}: {key!r} is given twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in pairs if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN))$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Plain data from YAML text.

    Raises
    ------
    ConfigError
        For text that is not YAML, is no mapping, or holds what :class:`_Loader` rejects.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source} is larger than {MAX_BYTES} bytes; a configuration is a page or two")
    try:
        value = yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{source}, {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested deeper than {MAX_DEPTH} levels") from None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{source}: a configuration is a mapping such as 'training: {{epochs: 10}}', got {type(value).__name__}"
        )
    return value
