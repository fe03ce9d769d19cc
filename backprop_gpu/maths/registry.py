"""Looking a formula up by name: one rule for losses, optimizers and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from ..errors import ConfigError, did_you_mean

T = TypeVar("T")


def create(kind: str, registry: Mapping[str, type[T]], spec: str | dict[str, Any] | T) -> T:
    """Return ``spec`` itself if it is an object already, else ``registry[name](**parameters)``.

    Raises
    ------
    ConfigError
        For an unknown name or parameter; the class itself checks values.
    """
    if not isinstance(spec, str | dict):
        return spec
    given = dict(spec) if isinstance(spec, dict) else {"name": spec}
    name = given.pop("name", None)
    if name not in registry:
        raise ConfigError(f"unknown {kind} {name!r}{did_you_mean(str(name), registry)}; known: {', '.join(registry)}")
    known = [f.name for f in fields(registry[name])]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ConfigError(f"{kind} {name!r} has no parameter {key!r}{hint}; it takes {', '.join(known) or 'none'}")
    return registry[name](**given)
