"""Where tables come from: a built-in name, .npz, .npy (memory-mapped) or CSV."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, DataError, did_you_mean
from ..safe_files import is_absent
from .array_files import map_array, read_archive
from .cells import listed
from .csv_files import column_names, read_cells, read_csv
from .generated import friedman1, moons
from .policies import columns_to_read
from .table import Schema, Table, table_from_arrays

_LOG = logging.getLogger("backprop_gpu.data")
_SHIPPED = {"breast_cancer": "breast_cancer.npz", "digits": "digits.npz"}
_GENERATED = {"moons": moons, "regression": friedman1}
TASK_OF_BUILTIN = {"breast_cancer": "binary", "digits": "multiclass", "moons": "binary", "regression": "regression"}
BUILTIN = (*_SHIPPED, *_GENERATED)
"""The names that :func:`load_builtin` knows."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".npz", ".npy", *_DELIMITERS)
"""The suffixes of files that :func:`read_table` reads."""
_PANDAS_READS = {".parquet": "parquet", ".feather": "feather", ".orc": "orc", ".xlsx": "excel", ".xls": "excel"}


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
        read, csv = f"read_{_PANDAS_READS[suffix]}", str(path.with_suffix(".csv"))
        command = f"pandas.{read}({source!r}).to_csv({csv!r}, index=False)"
        raise ConfigError(f"{source} cannot be read here; make it a CSV with pandas: {command}")


def read_table(
    source: str | Path,
    *,
    target: str | int | Sequence[str | int] | None = None,
    columns: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    categorical: Sequence[str] | Literal["auto"] = "auto",
    delimiter: str | None = None,
    options: Mapping[str, Any] | None = None,
    like: Schema | None = None,
    labelled: bool = True,
) -> Table:
    """Read a table from a built-in name or from a file, by its suffix.

    Parameters
    ----------
    source : str or Path
        One of ``BUILTIN``; a ``.npz`` with arrays X and y (optionally feature_names and classes); a ``.npy`` with X,
        which stays memory-mapped; a ``.csv`` or ``.tsv`` with a header, UTF-8.
    target : str, int or a sequence of them
        CSV: the target column(s), by name or position (0 is the first, -1 the last). ``.npy``: the file that holds y.
        A ``.npz`` holds its own.
    columns, ignore : sequence of str
        CSV: the feature columns (default: all but the target), and columns to leave out.
    categorical : "auto" or sequence of str
        CSV: the columns that hold categories. ``auto`` takes each column with a cell that is neither a number nor
        missing, but is an error where most cells were meant as numbers: fewer than a tenth are something else, or they
        are written with a decimal comma, thousands marks, % or a currency. The target, if it is listed, is text.
    delimiter : str
        CSV: one character; default a comma, or a tab for ``.tsv``.
    options : mapping
        Built-in moons and regression: parameters of :func:`moons` and :func:`friedman1`.
    like : Schema
        Read a CSV as the training table was read (``preprocessor.schema``): its delimiter, its columns in any order
        (others, and columns that are missing, by its policies), and its target unless ``target`` names another column.
    labelled : bool
        False: leave the target out; the file need not have one.

    Notes
    -----
    For each column of a CSV that may have been misread, such as dates and identifiers that become categories, and codes
    that become numbers, the logger ``backprop_gpu.data`` gets a line (on standard error, unless logging is set up
    otherwise); not with ``like``. The lines are in the table's ``notes``, too.

    Raises
    ------
    DataError
        For a file that is missing, empty, damaged or not of the shape above; the message names the line and the column.
    ConfigError
        For an unknown built-in name or option, or a setting that this kind of source does not take.
    """
    suffix = Path(source).suffix.lower()
    of_csv = {"columns": columns, "ignore": ignore, "categorical": categorical != "auto", "delimiter": delimiter}
    given = [name for name, value in of_csv.items() if value]
    if suffix in SUFFIXES and options:
        given = ["options"]
    elif suffix in _DELIMITERS:
        given = []
    elif suffix != ".npy" and target is not None:
        given.append("target")
    if given:
        raise ConfigError(f"{given[0]} does not apply to {str(source)!r}; take it out")
    if suffix in _DELIMITERS:
        return _read_csv(Path(source), target, columns, ignore, categorical, delimiter, like, labelled)
    if suffix == ".npy":
        return _read_npy(Path(source), target, labelled)
    if suffix == ".npz":
        return _read_npz(Path(source), str(source), labelled)
    return load_builtin(str(source), **(options or {}))


def _read_csv(
    path: Path,
    target: str | int | Sequence[str | int] | None,
    columns: Sequence[str] | None,
    ignore: Sequence[str],
    categorical: Sequence[str] | Literal["auto"],
    delimiter: str | None,
    like: Schema | None,
    labelled: bool,
) -> Table:
    if like is not None:
        target = like.target_names if target is None else target
        delimiter = delimiter or like.delimiter
    mark = _DELIMITERS[path.suffix.lower()] if delimiter is None else delimiter
    wanted = _target_columns(path, target, mark) if labelled else ()
    if like is not None:
        names = column_names(path, mark, labelled=labelled)
        columns = columns_to_read(names, like, str(path), [str(name) for name in wanted])
        categorical = [name for name in like.categorical if name in columns]
        categorical += map(str, wanted) if like.text_target else ()
    table = read_csv(path, wanted, columns, ignore, categorical, mark, trained=like is not None)
    for note in table.notes:
        _LOG.warning("note: %s", note)
    return replace(table, delimiter=delimiter)


def read_texts(path: str | Path, names: Sequence[str], delimiter: str | None = None) -> list[list[str]]:
    """The cells of some columns of a CSV as they are written, for output beside what is computed from the others.

    Raises
    ------
    DataError
        For a file that cannot be read, or lacks a column.
    ConfigError
        For another kind of file.
    """
    path = Path(path)
    if path.suffix.lower() not in _DELIMITERS:
        raise ConfigError(f"columns can be kept of a CSV, not of {str(path)!r}; take that out")
    return read_cells(path, names, delimiter or _DELIMITERS[path.suffix.lower()])


def names_of(source: str | Path, delimiter: str | None = None) -> list[str]:
    """The columns of a CSV, or the arrays of a .npz; none for another source."""
    path = Path(source)
    if path.suffix.lower() in _DELIMITERS:
        return column_names(path, delimiter or _DELIMITERS[path.suffix.lower()], labelled=False)
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
            f" give {', '.join(BUILTIN)} or a file that ends in .npz, .npy, .csv or .tsv"
        )
    known = inspect.signature(_GENERATED[name]).parameters
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise ConfigError(f"the data set {name!r} has no option {option!r}{hint}; it takes {', '.join(known)}")
    X, y = _GENERATED[name](**options)
    return table_from_arrays(X, y, source=name, feature_names=[f"x{j}" for j in range(X.shape[1])])


def _target_columns(path: Path, target: str | int | Sequence[str | int] | None, delimiter: str) -> Sequence[str | int]:
    if target is None:
        names = column_names(path, delimiter)
        raise ConfigError(
            f"{path}: name the target column, the one to predict, with target; its columns: {listed(names)}"
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
