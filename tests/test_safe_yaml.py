"""YAML as the configuration reads it: YAML 1.2's plain data, and one line for everything else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.yaml_text import BOMB

from backprop_gpu.errors import ConfigError
from backprop_gpu.safe_yaml import MAX_BYTES, MAX_DEPTH, parse_yaml

SCALARS = {
    # YAML 1.2, section 10.3.2 (core schema); YAML 1.1 reads those marked * otherwise.
    "1e3": 1000.0,  # *
    "1e-3": 0.001,  # *
    "1E+2": 100.0,  # *
    "1.5e-3": 0.0015,  # *
    "-2.5": -2.5,
    ".5": 0.5,
    "1.": 1.0,
    "-.inf": -math.inf,
    ".inf": math.inf,
    "12": 12,
    "-12": -12,
    "+12": 12,
    "010": 10,  # *
    "0o10": 8,  # *
    "0x1F": 31,
    "1:30": "1:30",  # *
    "1_000": "1_000",  # *
    "1_0.5": "1_0.5",  # *
    "0b1": "0b1",  # *
    "0b_": "0b_",  # *
    "0x_": "0x_",  # *
    "2024-01-31": "2024-01-31",  # *
    "2024-99-99": "2024-99-99",  # *
    "yes": "yes",  # *
    "No": "No",  # *
    "on": "on",  # *
    "y": "y",
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "": None,
    "=": "=",  # *
    "e3": "e3",
    "1e": "1e",
    "'1e3'": "1e3",
    '"12"': "12",
    "cuda:1": "cuda:1",
    "größe": "größe",
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_those_of_yaml_1_2(text: str) -> None:
    value = parse_yaml(f"key: {text}", "a.yaml")["key"]
    assert (value, type(value)) == (SCALARS[text], type(SCALARS[text]))


def test_not_a_number_is_a_float() -> None:
    assert math.isnan(parse_yaml("key: .nan", "a.yaml")["key"])


@pytest.mark.parametrize("text", ["", "\n", "# a remark\n", "---\n", "---\n...\n", "{}", "null", "\ufeff"])
def test_nothing_is_an_empty_mapping(text: str) -> None:
    assert parse_yaml(text, "a.yaml") == {}


def test_structures() -> None:
    text = "a: {b: [1, 2], c: x}\nd:\n  - e: 1\n    f: 2.5\n  - g\nh: |\n  two\n  lines\n"
    wanted = {"a": {"b": [1, 2], "c": "x"}, "d": [{"e": 1, "f": 2.5}, "g"], "h": "two\nlines\n"}
    assert parse_yaml(text, "a.yaml") == wanted
    assert parse_yaml("\ufeff" + text.replace("\n", "\r\n"), "a.yaml") == wanted  # as Notepad writes it


# Text -> words that the message must hold.
REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "billion laughs": (BOMB, ("line 2", "alias", "write the value out")),
    "alias of itself": ("a: &a [*a]", ("line 1", "alias")),
    "merge of an alias": ("a: &a {x: 1}\nb:\n  <<: *a\n", ("line 3", "alias")),
    "duplicate key": ("a: 1\nb: 2\na: 3\n", ("line 3", "'a'", "twice")),
    "duplicate key, quoted": ("a: 1\n'a': 3\n", ("line 2", "'a'", "twice")),
    "duplicate key, nested": ("s:\n  a: 1\n  a: 1\n", ("line 3", "'a'", "twice")),
    "duplicate key, in a list": ("s:\n  - {a: 1, a: 1}\n", ("line 2", "'a'", "twice")),
    "depth": ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, ("line 1", str(MAX_DEPTH))),
    "depth without end": ("a: " + "[" * 100_000, ("line 1", str(MAX_DEPTH))),
    "depth in blocks": ("".join(f"{' ' * i}k:\n" for i in range(200)), (str(MAX_DEPTH),)),
    "tab": ("a:\n\tb: 1\n", ("line 2", "not valid YAML")),
    "list": ("- a\n- b\n", ("mapping", "list")),
    "text": ("just words", ("mapping", "str")),
    "number": ("3", ("mapping", "int")),
    "two documents": ("a: 1\n---\nb: 2\n", ("not valid YAML",)),
    "unclosed": ("a: [1, 2", ("not valid YAML",)),
    "unclosed quote": ("a: 'b\n", ("not valid YAML",)),
    "two colons": ("a: b: c", ("line 1", "not valid YAML")),
    "reserved": ("a: @b", ("line 1", "not valid YAML")),
    "NUL": ("a: \0", ("not valid YAML",)),
    "control character": ("a: \x1b[31m", ("not valid YAML",)),
    "escaped NUL": ('a: "x\\0y"', ("line 1",)),
    "escaped surrogate": ('a: "\\ud800"', ("line 1",)),
    "python object": ("a: !!python/object/apply:os.system ['true']", ("line 1", "!!python/object/apply:os.system")),
    "python name": ("a: !!python/name:os.system", ("line 1", "!!python/name:os.system")),
    "own tag": ("a: !secret b", ("line 1", "!secret")),
    "tag int": ("a: !!int abc", ("line 1", "!!int")),
    "tag float": ("a: !!float abc", ("line 1", "!!float")),
    "tag bool": ("a: !!bool maybe", ("line 1", "!!bool")),
    "tag timestamp": ("a: !!timestamp today", ("line 1", "!!timestamp")),
    "tag binary": ("a: !!binary aGk=", ("line 1", "!!binary")),
    "tag set": ("a: !!set {b}", ("line 1", "!!set")),
    "integer of 5,000 digits": ("a: " + "9" * 5000, ("line 1",)),
    "key 1": ("1: a", ("line 1", "1")),
    "key null": ("~: a", ("line 1", "None")),
    "key list": ("? [a]\n: b\n", ("line 1", "['a']")),
    "key mapping": ("a: {{b: 1}: c}", ("line 1",)),
    "size": ("a: " + "x" * MAX_BYTES, (str(MAX_BYTES),)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_that_names_the_place(case: str) -> None:
    text, words = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "some.yaml")
    message = str(caught.value)
    assert message.startswith("some.yaml")
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    assert not [word for word in words if word not in message], message


def test_one_level_less_than_the_limit_is_read() -> None:
    levels = MAX_DEPTH - 2  # the mapping and the scalar are levels too
    value = parse_yaml("a: " + "[" * levels + "x" + "]" * levels, "a.yaml")["a"]
    for _ in range(levels):
        (value,) = value
    assert value == "x"


def test_a_merge_key_merges_nothing() -> None:
    assert parse_yaml("<<: {a: 1}", "a.yaml") == {"<<": {"a": 1}}


PIECES = [
    "a",
    "b",
    ": ",
    "\n",
    "  ",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&a ",
    "*a",
    "!!int ",
    "!x ",
    "'",
    '"',
    "|\n",
]
PIECES += [
    "<<",
    "=",
    "~",
    "1",
    "0b",
    "_",
    "1:60",
    "2024-13-01",
    ".inf",
    "%",
    "@",
    "\t",
    "\0",
    "\\0",
    "#",
    "---\n",
    "\ufeff",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=25).map("".join))
def test_any_text_is_a_mapping_or_one_line(text: str) -> None:
    refused = ""
    value: Any = {}
    try:
        value = parse_yaml(text, "a.yaml")
    except ConfigError as error:
        refused = str(error)
    assert len(refused.splitlines()) <= 1
    assert isinstance(value, dict)
    assert all(isinstance(key, str) for key in value)
