"""``backprop-gpu config init``: a first configuration of a table, with what was seen in it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .atomic_file import write_file
from .cli_reading import add_reading, settings_of
from .errors import ConfigError, DataError, shown

if TYPE_CHECKING:
    from .config import Config
    from .data.inspection import Inspection

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS = {"y", "n", "yes", "no", "true", "false", "on", "off", "null"}
_RARE = 0.2  # a class of a smaller share is worth a word
_EXAMPLES = """\
examples:
  backprop-gpu config init flats.csv --target rent                     to the screen
  backprop-gpu config init flats.csv --target rent --out flats.yaml    then: backprop-gpu train flats.yaml
"""


def add_init(parser: argparse.ArgumentParser) -> None:
    """Give the parser its options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("data", help="a table: .csv, .tsv, .txt, each also .gz; .parquet, .feather, .arrow, .xlsx")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="the column to predict")
    parser.add_argument("--out", metavar="FILE", help="the file to write (default: standard output)")
    add_reading(parser)
    parser.set_defaults(command=_init)


def _init(options: argparse.Namespace) -> int:
    from .data.inspection import inspect
    from .data.sources import read_table
    from .report import terminal

    if options.out is not None and os.path.exists(options.out):
        raise ConfigError(f"{options.out} is there already; give another file, or remove it")
    settings = settings_of(options)
    with _no_notes():  # what they advise is done here
        found = inspect(read_table(options.data, target=options.target, **settings))
    text = configuration(found, options.data, settings)
    if options.out is None:
        print(text, end="")
        return 0
    write_file(options.out, text)
    terminal.console().print(terminal.inspection(found))
    print(f"task: {found.task}, since {found.why_task}")
    print(f"{options.out}: backprop-gpu train {options.out}")
    return 0


def without_useless(config: Config, say: Callable[[str], None]) -> Config:
    """What ``train FILE --preset tabular`` trains: columns that tell nothing are left out, as a written file has it."""
    from .config import check
    from .data.inspection import inspect
    from .data.sources import STANDARD_INPUT, is_columns
    from .rows import read_whole

    d = config.data
    if (
        not config.preset
        or d.target is None
        or d.columns
        or not is_columns(d.source)
        or d.source == str(STANDARD_INPUT)
    ):
        return config
    with _no_notes():
        found = inspect(read_whole(config))
    out = {column.name: column.leave_out for column in found.columns if column.leave_out}
    for name, why in out.items():
        say(f"left out: {name}, {why}")
    data = config.model_dump()
    return check(data | {"data": data["data"] | {"ignore": [*d.ignore, *out]}}) if out else config


@contextmanager
def _no_notes() -> Iterator[None]:
    """Without the lines about columns that may have been misread."""
    log = logging.getLogger("backprop_gpu.data")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def configuration(found: Inspection, source: str, settings: dict[str, Any]) -> str:
    """The YAML, with comments, of a table that was looked at."""
    from .presets import batch_size_for, epochs_for

    used = sum(not column.leave_out for column in found.columns)
    targets = ", ".join(map(_name, found.targets))
    lines = [
        f"# {found.rows} rows, {used} columns of {len(found.columns)}. backprop-gpu config show FILE has every key.",
        "data:",
        f"  source: {_name(source)}",
        f"  target: {targets if len(found.targets) == 1 else f'[{targets}]'}",
        f"  task: {found.task}  # {found.why_task}",
        *(f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()),
    ]
    if out := [column for column in found.columns if column.leave_out]:
        lines += ["  ignore:", *(f"    - {_name(column.name)}  # {column.leave_out}" for column in out)]
    if found.gaps:
        lines.append(f"  missing: indicator  # gaps in {', '.join(found.gaps)}; also: mean, median")
    lines.append("  # the columns as they were read:")
    for column in found.columns:
        if not column.leave_out:
            how = f" ({column.how})" if column.how else ""
            gaps = f", {column.gaps} missing" if column.gaps else ""
            doubt = f"; {column.warning}" if column.warning else ""
            lines.append(f"  #   {column.name}: {column.kind}{how}, {column.different} different{gaps}{doubt}")
    lines += _in_time(found)
    lines += [
        "# scaling, encoding, network, optimizer, schedule; what you write beside it wins: model: {hidden: [256]}",
        "preset: tabular",
        f"training: {{epochs: {epochs_for(found.rows)}, batch_size: {batch_size_for(found.rows)}{_balance(found)}}}",
    ]
    if found.classes:
        shares = ", ".join(f"{name} {count / found.rows:.1%}" for name, count in found.classes.items())
        lines.append(f"# classes: {shares}")
    return "".join(f"{_escaped(line)}\n" for line in lines)


def _in_time(found: Inspection) -> list[str]:
    """How to be judged by the latest rows, where the rows follow in time."""
    kept = [column for column in found.columns if not column.leave_out]
    time = next((column.name for column in kept if column.in_order), None)
    if time is None:
        return []
    return [
        f"  # The rows follow {_name(time)}. Take the # away to be tested on the latest ones, as new rows will be:",
        f"  # time_column: {_name(time)}",
        f"  # columns: [{', '.join(_name(column.name) for column in kept)}]  # else the time is no input",
    ]


def _balance(found: Inspection) -> str:
    """A threshold that suits a rare class of two."""
    rare = found.task == "binary" and min(found.classes.values()) < _RARE * found.rows
    return ", threshold: balanced_accuracy" if rare else ""


def _escaped(line: str) -> str:
    """A line, whatever the names in it: a line break in one would make a setting of what follows it."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in line)


def _name(text: str) -> str:
    """A text as YAML takes it.

    Raises
    ------
    DataError
        For one with letters that YAML has not.
    """
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise DataError(f"no configuration can name {shown(text)}; take \\0 and halves of surrogate pairs out of it")
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
