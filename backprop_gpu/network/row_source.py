"""Rows that are not in memory: they are read from where they lie when a part of them is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DataError


class RowSource:
    """Rows (n, k) of numbers. ``source[2:5]`` and ``source[np.array([7, 2])]`` read some, in this order.

    A subclass sets ``shape`` and ``dtype`` and has :meth:`take`. ``Trainer.fit`` takes a source in place of an array.

    Attributes
    ----------
    shape : (n, k)
    dtype : numpy.dtype
        Of the rows that are read.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    ndim = 2

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows with these numbers (m,), in their order: an array (m, k). Several threads may call it at once."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.take(np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows))


class CheckedRows(RowSource):
    """Rows that are checked and converted when they are read.

    Parameters
    ----------
    source : RowSource
    check : callable
        Rows as they are read (m, k) to rows as they are used; raises DataError.
    name : str
        What an error calls the rows.
    """

    def __init__(self, source: RowSource, check: Callable[[np.ndarray], np.ndarray], name: str) -> None:
        self._source, self._check, self._name = source, check, name
        first = self.take(np.zeros(1, np.int64))
        self.shape, self.dtype = (len(source), first.shape[1]), first.dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See :class:`RowSource`; raises DataError for a row that cannot be used, with its number."""
        values = self._source.take(rows)
        try:
            return self._check(values)
        except DataError as error:
            problem = error
        for row, value in zip(rows.tolist(), values, strict=True):
            try:
                self._check(value[None])
            except DataError as error:
                raise DataError(f"row {row} of {self._name}: {error}") from None
        raise problem
