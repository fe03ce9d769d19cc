"""Everything that a configuration can get wrong, generated from its own schema: one line that names the place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.json_schema import Schema

from backprop_gpu.config import Config, validate
from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.activations import ACTIVATIONS
from backprop_gpu.maths.losses import LOSSES
from backprop_gpu.maths.optimizers import OPTIMIZERS
from backprop_gpu.maths.schedules import SCHEDULES

SCHEMA = Schema(Config.model_json_schema())


@dataclass(frozen=True)
class Section:
    """A mapping in the configuration: where it is, its schema, and what chooses it among its alternatives."""

    path: tuple[str, ...]
    node: dict[str, Any]
    chosen: tuple[tuple[str, str], ...] = ()

    def holding(self, key: str, value: Any) -> dict[str, Any]:
        """A configuration in which this section has this key, and nothing else is set."""
        inner: dict[str, Any] = dict(self.chosen) | {key: value}
        for part in reversed(self.path):
            inner = {part: inner}
        return inner

    def where(self, key: str) -> str:
        """The dotted path of a key of this section."""
        return ".".join((*self.path, key))

    def __str__(self) -> str:
        return ".".join(self.path) + "".join(f"[{name}]" for _, name in self.chosen)


def sections(node: dict[str, Any] = SCHEMA.root, path: tuple[str, ...] = ()) -> Iterator[Section]:
    """Every section of the schema; those to choose from, one for each choice."""
    name = node["properties"].get("name", {})
    chosen = name.get("const") or (name["enum"][0] if "enum" in name else None)
    yield Section(path, node, (("name", chosen),) if chosen else ())
    for key, child in node["properties"].items():
        for branch in SCHEMA.branches(child):
            if "properties" in branch:
                yield from sections(branch, (*path, key))


SECTIONS = list(sections())
KEYS = [(section, key) for section in SECTIONS for key in section.node["properties"]]


def message_of(data: Any) -> str:
    """The one line that refuses a configuration."""
    with pytest.raises(ConfigError) as caught:
        validate(data, "a.yaml")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("a.yaml: ")
    assert len(message) < 500
    return message.removeprefix("a.yaml: ")


def test_the_schema_was_walked_whole() -> None:
    choices = {str(section) for section in SECTIONS}
    assert {f"optimizer[{name}]" for name in OPTIMIZERS} <= choices
    assert {f"schedule[{name}]" for name in SCHEDULES} <= choices
    assert {f"loss[{name}]" for name in LOSSES} <= choices
    assert {"", "data", "model", "regularization", "training", "training.early_stopping"} <= choices
    assert any(section.path == ("model", "activation") for section in SECTIONS)


# -- unknown keys ----------------------------------------------------------------------------------------------------


def misspelt(key: str) -> list[str]:
    """A letter dropped, two letters swapped, a letter doubled; for the shortest keys doubled alone (l1 less 1 is l)."""
    middle = len(key) // 2
    doubled = key[:1] + key
    if len(key) < 4:
        return [doubled]
    dropped = key[:middle] + key[middle + 1 :]
    swapped = key[: middle - 1] + key[middle] + key[middle - 1] + key[middle + 1 :]
    return [word for word in (dropped, swapped, doubled) if word != key]


@pytest.mark.parametrize(("section", "key"), KEYS, ids=str)
def test_a_misspelt_key_is_recognized(section: Section, key: str) -> None:
    known = set(section.node["properties"])
    for word in misspelt(key):
        message = message_of(section.holding(word, 1))
        assert message.startswith(f"unknown key {section.where(word)!r} (did you mean {key!r}?); known here: "), message
        assert set(message.rpartition("known here: ")[2].split(", ")) == known


# Words that mean something elsewhere in the schema, or in the library that checks it.
MEANINGFUL = [
    "step",
    "sgd",
    "momentum",
    "huber",
    "list",
    "str",
    "int",
    "float",
    "literal",
    "function",
    "constrained",
    "name2",
]


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_an_unknown_key_is_named_whatever_it_is(section: Section) -> None:
    for word in (word for word in MEANINGFUL if word not in section.node["properties"]):
        assert message_of(section.holding(word, {"x": 1})).startswith(f"unknown key {section.where(word)!r}")


OF_ANOTHER = [
    (section, name, key)
    for section, registry in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("loss", LOSSES))
    for name, cls in registry.items()
    for key in sorted({f.name for other in registry.values() for f in fields(other)} - {f.name for f in fields(cls)})
]


@pytest.mark.parametrize(("section", "name", "key"), OF_ANOTHER)
def test_a_key_of_another_choice_is_not_answered_with_itself(section: str, name: str, key: str) -> None:
    message = message_of({section: {"name": name, key: 0.5}})
    assert message.startswith(f"unknown key '{section}.{key}' ({section} {name!r} has none; ")
    assert f"did you mean '{section}.{key}'" not in message
    owners = message.partition("has none; ")[2].partition(" has one)")[0].replace("'", "").split(", ")
    registry = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "loss": LOSSES}[section]
    assert owners == [other for other, cls in registry.items() if key in {f.name for f in fields(cls)}]


def test_a_section_inside_of_another_is_said_to_stand_outside() -> None:
    message = message_of({"optimizer": {"name": "adam", "schedule": "cosine"}})
    assert message.startswith(
        "unknown key 'optimizer.schedule' ('schedule' is a key of its own, outside of 'optimizer')"
    )


def test_unknown_keys_come_before_wrong_values() -> None:
    assert message_of({"model": {"hidden": 0, "hiden": 1}}).startswith("unknown key 'model.hiden'")


# -- wrong values ----------------------------------------------------------------------------------------------------

OTHER_TYPES: list[Any] = ["no such word", 7, -7, 0.5, True, None, [], ["no such word"], [[]], {"no such key": "x"}]


@pytest.mark.parametrize(("section", "key"), KEYS, ids=str)
def test_a_value_of_another_type_is_refused(section: Section, key: str) -> None:
    node = section.node["properties"][key]
    # The name of a choice belongs to the section: `optimizer: adam` is short for `optimizer: {name: adam}`.
    where = ".".join(section.path) if key == "name" and section.chosen else section.where(key)
    wrong = [value for value in OTHER_TYPES if not SCHEMA.accepts(value, node)]
    assert len(wrong) >= 3
    for value in wrong:
        assert where in message_of(section.holding(key, value)), value


def just_outside(node: dict[str, Any]) -> list[Any]:
    """Values just beyond each bound that a schema sets; of an array with bounded items, arrays of one such value."""
    step = 1 if node.get("type") == "integer" else math.ulp(1.0)
    found = [node[key] for key in ("exclusiveMinimum", "exclusiveMaximum") if key in node]
    found += [node["minimum"] - step] if "minimum" in node else []
    found += [node["maximum"] + step] if "maximum" in node else []
    found += ["x" * (node["maxLength"] + 1)] if "maxLength" in node else []
    found += ["x" * (node["minLength"] - 1)] if "minLength" in node else []
    if node.get("type") == "array":
        items = SCHEMA.branches(node["items"])
        found += [[value] for item in items for value in just_outside(item)]
        if "maxItems" in node:
            good = next(value for value in OTHER_TYPES if SCHEMA.accepts(value, node["items"]))
            found.append([good] * (node["maxItems"] + 1))
    return found


BOUNDED = [
    (section, key, value)
    for section, key in KEYS
    for branch in SCHEMA.branches(section.node["properties"][key])
    for value in just_outside(branch)
]


def test_bounds_were_found() -> None:
    assert {section.where(key) for section, key, _ in BOUNDED} >= {
        "seed", "data.validation", "data.delimiter", "model.hidden", "model.dropout", "regularization.l2",
        "regularization.clip_norm", "training.epochs", "training.batch_size", "training.early_stopping.patience",
    }  # fmt: skip


@pytest.mark.parametrize(("section", "key", "value"), BOUNDED, ids=lambda value: str(value)[:20])
def test_a_value_just_outside_is_refused(section: Section, key: str, value: Any) -> None:
    assert section.where(key) in message_of(section.holding(key, value))


WORDS = [
    (section, key, tuple(branch["enum"]))
    for section, key in KEYS
    for branch in SCHEMA.branches(section.node["properties"][key])
    if "enum" in branch and section.where(key) not in ("optimizer", "schedule", "loss")  # see the next test
]


@pytest.mark.parametrize(("section", "key", "words"), WORDS, ids=str)
def test_a_misspelt_word_is_recognized(section: Section, key: str, words: tuple[str, ...]) -> None:
    for word in (word for word in words if len(word) > 3):
        wrong = misspelt(word)[0]
        message = message_of(section.holding(key, wrong))
        assert section.where(key) in message
        assert f"got {wrong!r}" in message
        assert f"(did you mean {word!r}?)" in message
        assert all(other in message for other in words)


@pytest.mark.parametrize(
    ("section", "names"),
    [("optimizer", [*OPTIMIZERS]), ("schedule", [*SCHEDULES]), ("loss", [*LOSSES])],
)
def test_a_misspelt_choice_is_recognized(section: str, names: list[str]) -> None:
    for name in (name for name in names if len(name) > 3):
        for spec in (misspelt(name)[-1], {"name": misspelt(name)[-1]}):
            message = message_of({section: spec})
            assert message.startswith(f"{section}: unknown name {misspelt(name)[-1]!r} (did you mean {name!r}?)")
            assert all(other in message for other in names)


# -- what the formulas check themselves ------------------------------------------------------------------------------

NUMBERS = [
    (section, name, field.name)
    for section, registry in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("loss", LOSSES))
    for name, cls in registry.items()
    for field in fields(cls)
    if not isinstance(field.default, str)
]
TASK_OF = {"categorical_cross_entropy": "multiclass", "huber": "regression"}


@pytest.mark.parametrize(("section", "name", "key"), NUMBERS)
def test_no_number_of_a_formula_is_negative_or_infinite(section: str, name: str, key: str) -> None:
    for value in (-1, -0.5, -(10**400), math.inf, -math.inf, math.nan, 10**400):
        data = {section: {"name": name, key: value}, "data": {"task": TASK_OF.get(name, "binary")}}
        message = message_of(data)
        assert key in message, value
        assert section in message or name in message, value


@pytest.mark.parametrize("variant", ["", "Paper", "velocty", "averag"])
@pytest.mark.parametrize("name", ["momentum", "adam", "adamw", "amsgrad"])
def test_a_variant_is_one_of_those_published(name: str, variant: str) -> None:
    message = message_of({"optimizer": {"name": name, "variant": variant}})
    assert "variant" in message
    assert ("velocity or average" if name == "momentum" else "paper or epsilon_hat") in message


@pytest.mark.parametrize("name", [name for name, a in ACTIVATIONS.items() if a.output_only])
def test_an_activation_of_outputs_is_none_of_hidden_layers(name: str) -> None:
    for spec in (name, [name, "relu"], {"name": name}):
        assert "model.activation" in message_of({"model": {"activation": spec}})


# -- anything at all -------------------------------------------------------------------------------------------------


def test_a_long_value_is_cut_short() -> None:
    for value in ("x" * 100_000, ["x"] * 100_000, -(10**4000), {f"k{i}": i for i in range(10_000)}):
        assert message_of({"training": {"epochs": value}}).startswith("training.epochs: ")
        assert message_of({"optimizer": {"learning_rate": value}})


NAMES = sorted({key for section in SECTIONS for key in section.node["properties"]} | {*OPTIMIZERS, *SCHEDULES, *LOSSES})
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from([*NAMES, *ACTIVATIONS, "binary", "multiclass", "regression", "float64", "cpu", "cuda:1", 10**400]),
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*SCHEMA.root["properties"]]) | st.text(max_size=4), JUNK, max_size=4))
def test_any_mapping_is_valid_or_refused_in_one_line(data: dict[str, Any]) -> None:
    refused = ""
    try:
        validate(data)
    except ConfigError as error:
        refused = str(error)
    assert len(refused.splitlines()) <= 1
    assert len(refused) < 700
    assert refused or SCHEMA.accepts(data)


@settings(deadline=None)
@given(st.data())
def test_a_mapping_that_the_schema_refuses_is_refused(data: st.DataObject) -> None:
    section, key = data.draw(st.sampled_from(KEYS))
    value = data.draw(JUNK)
    config = section.holding(key, value)
    if not SCHEMA.accepts(config):
        message_of(config)
