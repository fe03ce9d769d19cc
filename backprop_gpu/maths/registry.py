"""Looking a formula up by name: one rule for losses, optimizers and schedules."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from ..errors import ConfigError, did_you_mean

T = TypeVar("T")


def is_number(value: Any) -> bool:
    """Whether a parameter is a real number that a float can hold, and not True or False; it may be infinite or NaN."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        float(value)
    except OverflowError:  # an integer beyond float64
        return False
    return True


def create(
    kind: str, base: type[T], needs: Sequence[str], registry: Mapping[str, type[T]], spec: str | dict[str, Any] | T
) -> T:
    """Return ``spec`` itself if it is an object of ``base`` already, else ``registry[name](**parameters)``.

    ``needs``: what someone's own subclass of ``base`` has to define.

    Raises
    ------
    ConfigError
        For an unknown name or parameter, or an unfinished subclass; the class itself checks values.
    """
    if isinstance(spec, base):
        missing = [name for name in needs if getattr(type(spec), name, None) is getattr(base, name, None)]
        if missing:
            raise ConfigError(f"{type(spec).__name__} is no {kind} yet; define {', '.join(missing)} in it")
        return spec
    if isinstance(spec, type) and issubclass(spec, base):
        raise ConfigError(f"{spec.__name__} is a class; give an object of it as {kind}: {spec.__name__}()")
    if not isinstance(spec, str | dict):
        own = f"an object of your own subclass of {base.__name__}"
        raise ConfigError(f"the {kind} must be a name, a mapping with a name and parameters, or {own}; got {spec!r}")
    given = dict(spec) if isinstance(spec, dict) else {"name": spec}
    if "name" not in given:
        raise ConfigError(f"a {kind} needs a name; known: {', '.join(registry)}")
    name = given.pop("name")
    if not isinstance(name, str) or name not in registry:
        raise ConfigError(f"unknown {kind} {name!r}{did_you_mean(str(name), registry)}; known: {', '.join(registry)}")
    known = [f.name for f in fields(registry[name])]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{kind} {name!r} has no parameter {key!r}{hint}; it takes {', '.join(known) or 'none'}")
    return registry[name](**given)
