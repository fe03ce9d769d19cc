"""Reads tables: by the name of a data set that comes along, or from a file of arrays or of text with a header."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ..errors import ConfigError, DataError, did_you_mean
from ..safe_files import is_absent
from . import arrow_files, csv_files, excel_files
from .array_files import map_array, read_archive
from .cells import listed
from .generated import friedman1, moons
from .policies import columns_to_read
from .read_settings import AS_FOUND, ReadSettings
from .table import Schema, Table, table_from_arrays
from .text_files import STANDARD_INPUT, said
from .text_table import Request

_LOG = logging.getLogger("backprop_gpu.data")
_SHIPPED = {"breast_cancer": "breast_cancer.npz", "digits": "digits.npz"}
_GENERATED = {"moons": moons, "regression": friedman1}
TASK_OF_BUILTIN = {"breast_cancer": "binary", "digits": "multiclass", "moons": "binary", "regression": "regression"}
BUILTIN = (*_SHIPPED, *_GENERATED)
"""The names that :func:`load_builtin` knows."""

_OF_TEXT = ("delimiter", "quote", "encoding", "comment", "header")
_TEXT = (".csv", ".tsv", ".tab", ".txt")
_STATED = (*arrow_files.SUFFIXES, *excel_files.SUFFIXES)
SUFFIXES = (".npz", ".npy", *_TEXT, ".gz", *_STATED)
"""The suffixes of files that :func:`read_table` reads."""
_PANDAS_READS = {
    ".orc": ("orc", "pyarrow"),
    ".xls": ("excel", "xlrd"),
    ".xlsb": ("excel", "pyxlsb"),
    ".ods": ("excel", "odfpy"),
    ".dta": ("stata", ""),
    ".sas7bdat": ("sas", ""),
    ".sav": ("spss", "pyreadstat"),
}


def check_readable(source: str) -> None:
    """That it is no table of another kind.

    Raises
    ------
    ConfigError
        Says how it becomes a CSV; or that there is no such file.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (*SUFFIXES, *_PANDAS_READS) and is_absent(path):
        raise ConfigError(f"{source}: there is no such file; check the path")
    if suffix in _PANDAS_READS:
        (kind, engine), csv = _PANDAS_READS[suffix], str(path.with_suffix(".csv"))
        command = f"pandas.read_{kind}({source!r}).to_csv({csv!r}, index=False)"
        install = f" (pip install pandas {engine}".rstrip() + ")"
        raise ConfigError(f"{source} cannot be read here; make it a CSV with pandas{install}: {command}")


def is_columns(source: str | Path) -> bool:
    """Whether a source is a file of named columns, one of which is the target, such as a CSV or a Parquet file."""
    return _suffix(Path(source)) in (*_TEXT, *_STATED)


def is_text(source: str | Path) -> bool:
    """Whether a source is a file of text, whose columns are what their cells look like."""
    return _suffix(Path(source)) in _TEXT


def _suffix(path: Path) -> str:
    """The suffix; of a compressed file of text, the one before; that of a CSV for standard input."""
    if path == STANDARD_INPUT:
        return ".csv"
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix == ".gz" else ""
    return inner if inner in _TEXT else suffix


def _reader(path: Path) -> ModuleType:
    """The module that reads a file of columns."""
    suffix = _suffix(path)
    return csv_files if suffix in _TEXT else excel_files if suffix in excel_files.SUFFIXES else arrow_files


def column_names(path: Path, settings: ReadSettings, labelled: bool = True) -> list[str]:
    """The columns of a file of columns, in its order; DataError if it cannot be read."""
    found: list[str] = _reader(path).column_names(path, settings, labelled)
    return found


def read_table(
    source: str | Path,
    *,
    target: str | int | Sequence[str | int] | None = None,
    columns: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    categorical: Sequence[str] | Literal["auto"] = "auto",
    options: Mapping[str, Any] | None = None,
    like: Schema | None = None,
    labelled: bool = True,
    **settings: Any,
) -> Table:
    """Read a table from a built-in name or from a file, by its suffix.

    Parameters
    ----------
    source : str or Path
        One of ``BUILTIN``; a ``.npz`` with arrays X and y (optionally feature_names and classes); a ``.npy`` with X,
        which stays memory-mapped; a file of text with a header (``.csv``, ``.tsv``, ``.tab``, ``.txt``, each also as
        ``.gz``), or ``-`` for such text on standard input; Parquet, Feather and Arrow files (``.parquet``,
        ``.feather``, ``.arrow``; with pyarrow), whose types are taken as they are, and the first sheet of an Excel
        workbook (``.xlsx``; with openpyxl).
    target : str, int or a sequence of them
        Columns: the target column(s), by name or position (0 is the first, -1 the last). ``.npy``: the file that holds
        y. A ``.npz`` holds its own.
    columns, ignore : sequence of str
        Columns: the features (default: all but the target), and columns to leave out.
    categorical : "auto" or sequence of str
        Columns that hold categories; the others must be numbers or dates. ``auto``: each is what all of its cells are
        (docs/tables.md); an error where a few are something else, or they may mean two things. The target, if it is
        listed, is text.
    options : mapping
        Built-in moons and regression: parameters of :func:`moons` and :func:`friedman1`.
    like : Schema
        Read columns as the training table was read (``preprocessor.schema``): with its settings and the forms of its
        columns, in any order (others, and columns that are missing, by its policies), and its target unless ``target``
        names another column.
    labelled : bool
        False: leave the target out; the file need not have one.
    **settings
        Text: delimiter, quote, encoding, decimal, thousands, comment, day_first, header, na_values, types, as
        :class:`ReadSettings` has them; what is not given is found out from the file.

    Notes
    -----
    ``Table.readings`` says how each column was read. For each that may have been misread, such as identifiers that
    become categories, the logger ``backprop_gpu.data`` gets a line (on standard error, unless logging is set up
    otherwise); not with ``like``. The lines are in the table's ``notes``, too.

    Raises
    ------
    DataError
        For a file that is missing, empty, damaged or not of the shape above; the message names the line and the column.
    ConfigError
        For an unknown built-in name or option, or a setting that this kind of source does not take.
    """
    path, suffix, asked = Path(source), Path(source).suffix.lower(), read_settings(settings)
    wanted = {"columns": columns, "ignore": ignore, "categorical": categorical != "auto", "target": target}
    _refuse_settings(path, wanted | asked.given(), bool(options))
    if is_columns(path):
        return _read_columns(path, target, Request((), columns, ignore, categorical, asked, like), labelled)
    if suffix == ".npy":
        return _read_npy(path, target, labelled)
    if suffix == ".npz":
        return _read_npz(path, str(source), labelled)
    return load_builtin(str(source), **(options or {}))


def _refuse_settings(path: Path, given: Mapping[str, Any], options: bool) -> None:
    """Raise ConfigError for a setting that the kind of source does not take."""
    suffix, names = path.suffix.lower(), [name for name, value in given.items() if value not in (None, (), [], False)]
    if is_columns(path):
        meaningless = () if is_text(path) else _OF_TEXT if suffix in arrow_files.SUFFIXES else _OF_TEXT[:-1]
        names = [name for name in names if name in meaningless]
    elif suffix in SUFFIXES and options:
        names = []
    elif suffix == ".npy":
        names = [name for name in names if name != "target"]
    if options and suffix in SUFFIXES:
        names = ["options"]
    if names:
        raise ConfigError(f"{names[0]} does not apply to {str(path)!r}; take it out")


def read_settings(settings: Mapping[str, Any]) -> ReadSettings:
    """Settings by their names; ConfigError for one that is unknown."""
    known = [f.name for f in fields(ReadSettings)]
    for name in settings:
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    return ReadSettings(**settings)


def _read_columns(
    path: Path, target: str | int | Sequence[str | int] | None, request: Request, labelled: bool
) -> Table:
    like, settings = request.like, request.settings
    if like is not None:
        target = like.target_names if target is None else target
        settings = replace(like.settings, **settings.given())
    wanted = _target_columns(path, target, settings) if labelled else ()
    request = replace(request, target=wanted, settings=settings)
    if like is not None:
        names = column_names(path, settings, labelled=labelled)
        columns = columns_to_read(names, like, said(path), [str(name) for name in wanted])
        there = set(columns)
        categorical = [name for name in like.categorical if name in there]
        categorical += map(str, wanted) if like.text_target else ()
        request = replace(request, columns=columns, categorical=categorical)
    table: Table = _reader(path).read_rows(path, request)
    for note in table.notes:
        _LOG.warning("note: %s", note)
    return table


def read_texts(path: str | Path, names: Sequence[str], settings: ReadSettings = AS_FOUND) -> list[list[str]]:
    """The cells of some columns as they are written, for output beside what is computed from the others.

    Raises
    ------
    DataError
        For a file that cannot be read, or lacks a column.
    ConfigError
        For another kind of file.
    """
    path = Path(path)
    if not is_columns(path):
        raise ConfigError(f"columns can be kept of a file of columns, not of {str(path)!r}; take that out")
    cells: list[list[str]] = _reader(path).read_cells(path, names, settings)
    return cells


def names_of(source: str | Path, settings: ReadSettings = AS_FOUND) -> list[str]:
    """The columns of a file of columns, or the arrays of a .npz; none for another source."""
    path = Path(source)
    if is_columns(path):
        return column_names(path, settings, labelled=False)
    return read_archive(path, [], str(source))[1] if path.suffix.lower() == ".npz" else []


def load_builtin(name: str, **options: Any) -> Table:
    """Load ``breast_cancer`` (569 x 30, binary), ``digits`` (1797 x 64, ten classes), ``moons`` or ``regression``.

    The first two come with the package (``builtin/ATTRIBUTION.md``) and take no options; the others are drawn by
    :func:`moons` and :func:`friedman1`, whose parameters are the options.
    """
    if name in _SHIPPED:
        if options:
            raise ConfigError(f"the data set {name!r} takes no options, got {', '.join(options)}")
        return _read_npz(Path(__file__).parent / "builtin" / _SHIPPED[name], name, labelled=True)
    if name not in _GENERATED:
        check_readable(name)
        raise ConfigError(
            f"no data set is called {name!r}{did_you_mean(name, BUILTIN)};"
            f" give {', '.join(BUILTIN)} or a file that ends in {', '.join(SUFFIXES)}"
        )
    known = inspect.signature(_GENERATED[name]).parameters
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise ConfigError(f"the data set {name!r} has no option {option!r}{hint}; it takes {', '.join(known)}")
    X, y = _GENERATED[name](**options)
    return table_from_arrays(X, y, source=name, feature_names=[f"x{j}" for j in range(X.shape[1])])


def _target_columns(
    path: Path, target: str | int | Sequence[str | int] | None, settings: ReadSettings
) -> Sequence[str | int]:
    if target is None:
        names = column_names(path, settings)
        raise ConfigError(
            f"{said(path)}: name the target column, the one to predict, with target; its columns: {listed(names)}"
        ).with_option("target", names[-1])
    return [target] if isinstance(target, str | int) else list(target)


def _read_npz(path: Path, source: str, labelled: bool) -> Table:
    wanted = ("X", "y", "feature_names", "classes")
    arrays, names = read_archive(path, [name for name in wanted if labelled or name != "y"], source)
    for name in ("X", "y") if labelled else ("X",):
        if name not in arrays:
            raise DataError(
                f"{source} has no array {name!r}; it holds {listed(names) or 'nothing'}: save it with {name}=..."
            )
    return table_from_arrays(
        arrays["X"],
        arrays.get("y"),
        source=source,
        feature_names=arrays.get("feature_names"),
        class_names=arrays.get("classes"),
    )


def _read_npy(path: Path, target: Any, labelled: bool) -> Table:
    if not labelled:
        return table_from_arrays(map_array(path), source=str(path))
    if not isinstance(target, str | Path):
        raise ConfigError(f"{path}: give the file that holds y, e.g. target: y.npy")
    return table_from_arrays(map_array(path), map_array(Path(target)), source=str(path))
