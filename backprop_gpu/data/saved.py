"""Checks of a preprocessor that was read from a file: even a file with a right digest may hold anything."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, shown
from .read_settings import ReadSettings
from .readings import with_parts

if TYPE_CHECKING:
    from .preprocessing import Preprocessor
    from .targets import TargetCodec

_HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs, which cannot be printed


def check_preprocessor(p: Preprocessor, choices: Mapping[str, Sequence[str]]) -> None:
    """Check that the parts of a preprocessor have their types and fit together.

    Raises
    ------
    CheckpointError
        Names the first that does not.
    """
    _names("columns", p.columns)
    _names("numeric", p.numeric)
    _names("indicators", p.indicators, may_be_empty=True)
    _require(set(p.numeric).isdisjoint(p.categories), "a column is numeric and has categories")
    stored = [name for name in p.columns if name not in p.categories]
    of_stored = with_parts(stored, p.readings) == p.numeric and set(p.categories) <= set(p.columns)
    _require(of_stored, "its columns are not those that are encoded")
    _require(set(p.indicators) <= set(p.numeric), "an indicator is not of a numeric column")
    _require(not p.indicators or p.fill is not None, "there are indicators and nothing fills their gaps")
    for name, found in p.categories.items():
        _names(f"categories of {shown(name)}", found)
    _vector("mean", p.mean, len(p.numeric))
    _vector("scale", p.scale, len(p.numeric), nonzero=True)
    if p.fill is not None:
        _vector("fill", p.fill, len(p.numeric))
    _require(isinstance(p.named, bool), "named is not true or false")
    for policy in ("unknown", "missing_columns", "extra_columns"):
        value = getattr(p, policy)
        _require(isinstance(value, str) and value in choices[policy], f"{policy} is {shown(value)}")
    _require(isinstance(p.robust, bool), "robust is not true or false")
    _check_bins(p)
    _names("others", p.others, may_be_empty=True)
    _require(isinstance(p.weight_column, str | None), "the weight column has no name")
    _check_settings(p.settings)


def _check_bins(p: Preprocessor) -> None:
    edges = p.bins.edges
    _require(len(edges) <= len(p.numeric), "there are bins of more columns than are numeric")
    for column in edges:
        _vector("edges of bins", column, len(column))
        _require(bool(np.all(np.diff(column) > 0.0)), "edges of bins do not increase")


def _check_settings(settings: ReadSettings) -> None:
    texts = (settings.delimiter, settings.quote, settings.encoding, settings.comment)
    _require(all(isinstance(value, str | None) for value in texts), "a setting of the file is no text")
    for value in (settings.day_first, settings.header):
        _require(isinstance(value, bool | None), "a setting of the file is not true or false")
    words = [*settings.na_values, *settings.types, *settings.types.values()]
    _require(all(isinstance(word, str) for word in words), "a setting of the file is no text")


def check_codec(c: TargetCodec, tasks: Sequence[str]) -> None:
    """The same for the encoding of targets."""
    _require(c.task in tasks, f"the task is {shown(c.task)}")
    _names("target names", c.names)
    _require(isinstance(c.flat, bool) and isinstance(c.integers, bool), "flat or integers is not true or false")
    _require(not c.flat or len(c.names) == 1, "a flat target has several columns")
    if c.task in ("binary", "multiclass"):
        _names("labels", c.labels)
        _require(len(c.labels) == 2 if c.task == "binary" else len(c.labels) > 1, "the number of labels is wrong")
        _require(len(c.names) == 1, "classes stand in several columns")
        _names("class names", c.class_names, distinct=False)
        _require(len(c.class_names) == len(c.labels), "there are not as many class names as labels")
        _require(not c.integers or all(_is_int64(label) for label in c.labels), "a label is not an integer")
    else:
        _require(not c.labels and not c.integers, f"a target of {c.task} has labels")
    _require(isinstance(c.threshold, float) and 0.0 <= c.threshold < 1.0, f"threshold is {shown(c.threshold)}")
    _require((c.mean is None) == (c.scale is None), "the target has a mean without a scale, or a scale without a mean")
    if c.mean is not None:
        _require(c.task == "regression", f"a target of {c.task} is standardized")
        _vector("target mean", c.mean, len(c.names))
        _vector("target scale", c.scale, len(c.names), nonzero=True)


def check_fit(p: Preprocessor, sizes: Sequence[int], per_target: int, test_rows: Any) -> None:
    """Check that a network of these sizes fits the preprocessor; ``test_rows``: the fingerprint of the test rows."""
    _require(p.target is not None, "it has no target")
    assert p.target is not None
    _require(isinstance(test_rows, str | None), "the fingerprint of the test rows is no text")
    given = len(p.feature_names), p.target.n_outputs * per_target
    network = f"the network has {sizes[0]} inputs and {sizes[-1]} outputs"
    _require(given == (sizes[0], sizes[-1]), f"it has {given[0]} inputs and {given[1]} outputs, {network}")


def _require(fits: bool, problem: str) -> None:
    if not fits:
        raise CheckpointError(f"the saved preprocessor does not fit together: {problem}; make the file again")


def _names(what: str, found: Any, *, may_be_empty: bool = False, distinct: bool = True) -> None:
    texts = isinstance(found, tuple) and all(isinstance(name, str) and not _HALVES.search(name) for name in found)
    _require(texts and (not distinct or len(set(found)) == len(found)), f"{what} are not different texts")
    _require(may_be_empty or what == "numeric" or len(found) > 0, f"there are no {what}")


def _vector(what: str, x: Any, n: int, *, nonzero: bool = False) -> None:
    fits = isinstance(x, np.ndarray) and x.shape == (n,) and x.dtype == np.float64 and bool(np.all(np.isfinite(x)))
    _require(fits, f"{what} is not {n} finite numbers")
    _require(not nonzero or bool(np.all(x != 0.0)), f"{what} has a zero")


def _is_int64(label: str) -> bool:
    try:
        return -(2**63) <= int(label) < 2**63
    except ValueError:
        return False
