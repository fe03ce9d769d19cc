"""Pydantic's errors about a configuration as one line, with the path and a guess at what was meant."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .errors import did_you_mean, shown
from .maths.losses import LOSSES
from .maths.optimizers import OPTIMIZERS
from .maths.schedules import SCHEDULES


@dataclass(frozen=True)
class LossOfTask:
    """The loss that goes with the task."""


CHOICES: dict[str, Mapping[str, type]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": {**LOSSES, "auto": LossOfTask},
}
"""The sections whose ``name`` decides which other keys they have."""

Added = Mapping[str, Collection[str]]


def explain(problems: Sequence[Any], data: dict[str, Any], root: Any, added: Added) -> str:
    """The first problem, as one line with the path to it and, for an unknown key, what was probably meant.

    Parameters
    ----------
    problems : sequence of dict
        ``ValidationError.errors()``.
    data : dict
        The configuration that was refused.
    root : type
        The model of the whole configuration.
    added : mapping
        By section, keys that each of its choices has beside its own parameters.
    """

    def rank(problem: Any) -> tuple[bool, int, bool]:
        # Of a union every branch complains; the one that got furthest is the one that was meant.
        depth = len(_path(problem, data))
        literal, word = problem["type"] == "literal_error", isinstance(problem["input"], str)
        return problem["type"] != "extra_forbidden", -depth, literal != word

    first = min(problems, key=rank)
    where = shown(".".join(map(str, _path(first, data))), quoted=False)
    given = shown(first["input"])
    if first["type"] == "extra_forbidden":
        key, known = str(first["loc"][-1]), sorted(_keys_at(first["loc"][:-1], root, added))
        hint = _of_another_name(first["loc"], added) or did_you_mean(key, known) or _elsewhere(key, root, added)
        if not hint and len(first["loc"]) > 1 and key in root.model_fields:
            hint = f" ({key!r} is a key of its own, outside of {first['loc'][0]!r})"
        return f"unknown key {where!r}{hint}; known here: {', '.join(known)}"
    if first["type"] == "union_tag_invalid":
        tag, expected = str(first["ctx"]["tag"]), first["ctx"]["expected_tags"].replace("'", "")
        return f"{where}: unknown name {shown(tag)}{did_you_mean(tag, expected.split(', '))}; known: {expected}"
    if first["type"] == "literal_error":
        expected = str(first["ctx"]["expected"]).replace("'", "")
        options = expected.replace(" or ", ", ").split(", ")
        whole = any(p["type"].startswith("int_") and p["loc"][:-1] == first["loc"][:-1] for p in problems)
        expected = f"a whole number or {expected}" if whole else expected
        return f"{where}: must be {expected}, got {given}{did_you_mean(str(first['input']), options)}"
    if first["type"] == "model_type":
        return f"{where or 'the file'}: must be a section of keys and values, got {given}"
    return f"{where}: {first['msg'][0].lower() + first['msg'][1:]}, got {given}"


def _path(problem: Any, data: Any) -> list[str | int]:
    """The keys and positions that lead to a problem: its ``loc`` without the branches of unions that stand between."""
    loc = list(problem["loc"])
    last_is_key = problem["type"] in ("extra_forbidden", "missing")
    if loc and loc[0] in CHOICES:
        del loc[1:2]  # the name that was chosen
    path: list[str | int] = []
    for position, part in enumerate(loc):
        held = isinstance(data, dict) and part in data
        if held or (isinstance(data, list) and isinstance(part, int)):
            data = data[part]
        elif not (last_is_key and position == len(loc) - 1):
            continue
        path.append(part)
    return path


def _of_another_name(loc: Sequence[int | str], added: Added) -> str:
    """The other names of this section that have this key; empty if none has."""
    section, key = loc[0], str(loc[-1])
    if section not in CHOICES or len(loc) != 3:
        return ""
    names = [name for name in CHOICES[section] if key in _keys_at((section, name), None, added)]
    return f" ({section} {loc[1]!r} has none; {', '.join(map(repr, names))} has one)" if names else ""


def _elsewhere(key: str, root: Any, added: Added) -> str:
    """The section that has this key, such as ``training`` for a bare ``epochs``; empty if none has."""
    for section, inner in root.model_fields.items():
        if section in CHOICES:
            places: list[tuple[str, ...]] = [(section, name) for name in CHOICES[section]]
        else:
            places = [(section,)] if hasattr(inner.annotation, "model_fields") else []
        if any(key in _keys_at(place, root, added) for place in places):
            return f" (did you mean '{section}.{key}'?)"
    return ""


def _keys_at(loc: tuple[int | str, ...], root: Any, added: Added) -> Iterator[str]:
    """The keys that the schema allows at a path."""
    if loc and loc[0] in CHOICES:
        chosen = CHOICES[str(loc[0])][str(loc[1])]
        yield from ("name", *(f.name for f in fields(chosen)), *added.get(str(loc[0]), ()))
        return
    model = root
    for part in loc:
        inner = model.model_fields.get(part)
        annotation = getattr(inner, "annotation", None)
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if hasattr(c, "model_fields")), model)
    yield from model.model_fields
