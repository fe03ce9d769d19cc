"""YAML read safely: plain data only, no aliases, tags, duplicate keys or depth, and scalars as in YAML 1.2."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import yaml

from .errors import ConfigError, shown

MAX_DEPTH = 20
MAX_BYTES = 1 << 18
MAX_VALUES = 20_000  # PyYAML takes 20 microseconds and more for each


class _Loader(yaml.SafeLoader):
    """SafeLoader that rejects aliases, tags, duplicate keys and depth, and reads scalars as YAML 1.2 does."""

    depth = 0
    values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{line}: YAML aliases (*) are not accepted; write the value out")
        if (tag := getattr(event, "tag", None)) is not None:
            name = shown(tag.replace("tag:yaml.org,2002:", "!!"), quoted=False)
            raise ConfigError(f"{line}: YAML tags are not accepted; leave out {name}")
        if re.search("[\0\ud800-\udfff]", getattr(event, "value", None) or ""):
            raise ConfigError(f"{line}: \\0 and halves of surrogate pairs are no text; take them out")
        self.depth += 1
        self.values += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"{line}: nested deeper than {MAX_DEPTH} levels; nest less")
        if self.values > MAX_VALUES:
            raise ConfigError(f"{line}: more than {MAX_VALUES} values; write less, a configuration is a page or two")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConfigError(f"line {line}: keys must be words, got {shown(key)}; is it a name? Then quote it")
            if key in seen:
                raise ConfigError(f"line {line}: {shown(key)} is given twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        try:
            return int(text, base)
        except ValueError:  # Python reads no more than some thousands of digits
            raise ConfigError(
                f"line {node.start_mark.line + 1}: a number of {len(text)} digits is too long; write a shorter one"
            ) from None


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
# YAML 1.2, section 10.3.2. PyYAML's own are of YAML 1.1: 1:30 and 2024-01-31 are no texts there, and 1e3 is one.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^{_pattern}\Z"), _first)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes every text that YAML 1.1 or 1.2 would read as something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Control characters are escaped, which only double quotes allow; as themselves they would be line breaks."""
    controls = any(unicodedata.category(letter) == "Cc" for letter in text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if controls else None)


_Dumper.add_representer(str, _text)


def to_yaml(data: dict[str, Any]) -> str:
    """YAML text that :func:`parse_yaml`, and readers of YAML 1.1, read as the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


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
        problem = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
        raise ConfigError(
            f"{source}{where}: not valid YAML: {shown(problem, quoted=False)}; correct it there"
        ) from None
    except RecursionError:
        raise ConfigError(f"{source}: nested deeper than {MAX_DEPTH} levels; nest less") from None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{source}: a configuration is a mapping such as 'training: {{epochs: 10}}', got {type(value).__name__}"
        )
    return value
