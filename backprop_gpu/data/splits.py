"""Training, validation and test rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError


class Split(NamedTuple):
    """Row indices of the three parts, each sorted; together they are 0 .. n-1, each once."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_indices(
    n: int,
    y: Any = None,
    *,
    validation: float = 0.15,
    test: float = 0.15,
    stratify: bool = False,
    seed: int = 0,
) -> Split:
    """Split n rows at random; the same arguments give the same split.

    Sizes are by largest remainder (Hamilton's method). Stratified, each class is split by its own largest remainders,
    the difference carried to the next class so that the parts keep their sizes; a class with a row for each part is in
    every part, and a class with fewer rows than parts is in training whole.

    Parameters
    ----------
    n : int
        Number of rows.
    y : array, shape (n,) or (n, 1)
        Class labels, for ``stratify``.
    validation, test : float
        Fractions of the rows; 0 makes an empty part.
    stratify : bool
        Give each part the classes' shares.
    seed : int
        Seed of the counter-based generator.

    Raises
    ------
    ConfigError
        For a fraction outside [0, 1), or fractions that leave nothing for training.
    DataError
        If a part that was asked for would be empty, or y is not one label for each row.
    """
    for name, fraction in (("validation", validation), ("test", test)):
        if not 0.0 <= fraction < 1.0:
            raise ConfigError(f"{name} must be at least 0 and below 1, got {fraction}")
    if validation + test >= 1.0:
        raise ConfigError(
            f"validation + test is {validation + test:g}; it must be below 1 so that rows are left to train"
        )
    shares = np.array([1.0 - validation - test, validation, test])
    order = np.random.Generator(np.random.Philox(seed)).permutation(n)
    if stratify:
        groups = _groups(n, y, order)
        counts = _stratified_counts(np.array([len(group) for group in groups]), shares)
    else:
        groups, counts = [order], _largest_remainder(n, shares, np.zeros(3))[None]
    for name, share, total in zip(Split._fields, shares, counts.sum(axis=0), strict=True):
        if share > 0.0 and total == 0:
            raise DataError(f"{n} rows are too few: a share of {share:g} leaves none for {name}; change the fractions")
    parts: list[list[np.ndarray]] = [[], [], []]
    for group, count in zip(groups, counts, strict=True):
        for part, rows in zip(parts, np.split(group, np.cumsum(count)[:-1]), strict=True):
            part.append(rows)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def sizes_of_parts(n: int, validation: float, test: float) -> np.ndarray:
    """How many of n rows go to training, validation and test, by largest remainder."""
    return _largest_remainder(n, np.array([1.0 - validation - test, validation, test]), np.zeros(3))


def stratified_order(n: int, y: Any, seed: int) -> np.ndarray:
    """The rows in an order of the seed, class after class if there are classes: dealt out in turn, shares are equal."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(n)
    return order if y is None else np.concatenate(_groups(n, y, order))


def _groups(n: int, y: Any, order: np.ndarray) -> list[np.ndarray]:
    """The rows of each class, in the drawn order; large classes last, since they can compensate for roundings."""
    y = np.asarray(y)
    if y.shape == (n, 1):
        y = y[:, 0]
    if y.shape != (n,):
        raise DataError(f"to stratify, y must hold one label for each of the {n} rows, got shape {y.shape}")
    _, codes = np.unique(y, return_inverse=True)
    shuffled = codes[order]
    groups = [order[shuffled == code] for code in range(codes.max() + 1)]
    return sorted(groups, key=len)


def _largest_remainder(n: int, shares: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """Counts with sum n, each the quota n * share rounded down or up; ``carried`` is added to the remainders."""
    quota = n * shares
    counts = np.floor(quota + 1e-9).astype(np.int64)  # 100 * (1 - 0.15 - 0.15) is 69.99999999999999
    remainder = quota - counts
    preference = np.where(remainder > 1e-9, remainder + carried, -np.inf)
    counts[np.argsort(-preference, kind="stable")[: n - counts.sum()]] += 1
    return counts


def _stratified_counts(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Rows of each class for each part, (n_classes, 3)."""
    wanted = shares > 0.0
    carried = np.zeros(3)
    counts = np.zeros((len(sizes), 3), dtype=np.int64)
    for row, size in zip(counts, sizes, strict=True):
        if size < wanted.sum():
            row[0] = size
        else:
            row[:] = _largest_remainder(size, shares, carried)
            while np.any(empty := wanted & (row == 0)):
                row[np.argmax(row)] -= 1
                row[np.argmax(empty)] += 1
        carried += size * shares - row
    return counts
