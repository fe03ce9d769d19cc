"""The options that say how a file of text is read; what is not said is found out from the file."""

from __future__ import annotations

import argparse
import json
from typing import Any

TAB = "\t"
NAMES = ("delimiter", "decimal", "thousands", "encoding", "quote", "comment", "day_first", "na_values")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add ``--delimiter``, ``--decimal``, ``--encoding``, ..."""
    group = parser.add_argument_group(
        "how a file of text is read", "default: as in training, else as the file suggests"
    )
    group.add_argument(
        "--delimiter", metavar="CHARACTER", type=lambda word: TAB if word in ("tab", "\\t") else word, help="or tab"
    )
    group.add_argument("--decimal", choices=(".", ","), help="the decimal mark, where 1,234 may mean two numbers")
    group.add_argument("--thousands", metavar="CHARACTER", help="what stands between thousands")
    group.add_argument("--encoding", help="utf-8, utf-16, cp1252, latin-1, ...")
    group.add_argument("--quote", metavar="CHARACTER", help='what cells may stand in; "" for none')
    group.add_argument("--comment", metavar="CHARACTER", help="what lines begin with that are left out")
    day = group.add_mutually_exclusive_group()
    day.add_argument("--day-first", action="store_true", default=None, help="03/04/2024 is in April")
    day.add_argument("--month-first", dest="day_first", action="store_false", help="03/04/2024 is in March")
    text = "a cell that stands for no value; may be given again"
    group.add_argument("--na", dest="na_values", action="append", metavar="TEXT", help=text)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What was said, by the names of ``ReadSettings``."""
    return {name: value for name in NAMES if (value := getattr(options, name)) is not None}


def as_overrides(options: argparse.Namespace) -> list[str]:
    """What was said, as ``--set`` takes it."""
    return [f"data.{name}={json.dumps(value, ensure_ascii=False)}" for name, value in settings_of(options).items()]
