"""Checks of the rows, targets and weights that a network is given, and their conversion to arrays for its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .._typing import Array
from ..backends import require_owned
from ..errors import ConfigError, DataError, ShapeError
from ..maths.losses import Loss
from .row_source import CheckedRows, RowSource

if TYPE_CHECKING:
    from .dense_net import DenseNet

_BLOCK = 2**22  # elements


class BatchSource(Protocol):
    """Buffers of a batch, of fixed shape; ``gather`` fills them with the batch whose number is in the counters."""

    X: Array
    Y: Array
    weights: Array | None
    m: int
    first: int  # the place of its first example in the batch of all ranks

    def gather(self, counters: Array) -> None:
        """Fill the buffers."""


def check_rows(X: Any, n_features: int, name: str = "X", dtype: str = "float64") -> np.ndarray:
    """X as a host array (n_samples, n_features) of finite numbers.

    Raises
    ------
    ShapeError, DataError
        For another shape, an empty array, text, NaN, infinity or a number beyond ``dtype`` (naming the cell).
    """
    if isinstance(X, RowSource):
        return _checked(X, name, lambda rows: check_rows(rows, n_features, name, dtype))
    X = _numbers(X, name)
    if X.ndim == 1 and n_features == 1:
        X = X[:, None]
    if X.ndim != 2 or X.shape[1] != n_features:
        hint = "; one example is X.reshape(1, -1)" if X.ndim == 1 else ""
        raise ShapeError(f"{name} must be (n_samples, {n_features}), got {_shape(X)}{hint}")
    if X.shape[0] == 0:
        raise DataError(f"{name} has no rows")
    _finite(X, name)
    largest = np.finfo(dtype).max
    wider = np.result_type(X.dtype, dtype) != np.dtype(dtype)  # else it cannot be beyond
    for start, part in _blocks(X) if wider else ():
        if np.max(np.abs(part), initial=0) > largest:
            row, column = np.argwhere(np.abs(part) > largest)[0]
            raise DataError(
                f"{name} has {part[row, column]} at row {start + row}, column {column}, beyond {dtype}; change its unit"
            )
    return _as_floats(X)


def check_targets(y: Any, loss: Loss, n_outputs: int, n_samples: int) -> np.ndarray:
    """y as (n_samples, k): floats, or int64 class labels (n_samples, 1) for a loss over classes.

    With several outputs per target column (quantiles), each column is repeated for its outputs.

    Raises
    ------
    ShapeError, DataError
        For another shape, labels or values out of range, NaN or infinity.
    """
    if isinstance(y, RowSource):
        if len(y) != n_samples:
            raise ShapeError(f"y must have a row for each of the {n_samples} of X, got {len(y)}")
        return _checked(y, "y", lambda rows: check_targets(rows, loss, n_outputs, len(rows)))
    y = _numbers(y, "y")
    y = y[:, None] if y.ndim == 1 else y
    classes = loss.labels == "classes"
    n_columns = n_outputs // loss.per_target
    widths = {1, n_outputs} if classes else {n_columns, n_outputs}
    if y.ndim != 2 or y.shape[0] != n_samples or y.shape[1] not in widths:
        wanted = f"({n_samples},) class labels or " if classes else ""
        raise ShapeError(f"y must be {wanted}({n_samples}, {n_columns}) for loss {loss.name!r}, got {_shape(y)}")
    _finite(y, "y")
    if classes and y.shape[1] == 1 and n_outputs > 1:
        bad = (y != np.floor(y)) | (y < 0) | (y >= n_outputs)
        _reject(y, bad, f"a class label from 0 to {n_outputs - 1}")
        return y.astype(np.int64)
    if classes or loss.labels in ("binary", "groups"):
        _reject(y, (y < 0) | (y > 1), "between 0 and 1")
    if loss.name == "poisson":
        _reject(y, y < 0, "at least 0 for the poisson loss")
    if not classes and y.shape[1] < n_outputs:
        y = np.repeat(y, loss.per_target, axis=1)
    return _as_floats(y)


def _checked(source: RowSource, name: str, check: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Rows that are checked when they are read; they are used like an array of which a part at a time is asked for."""
    return CheckedRows(source, check, name)


def check_weights(weights: Any, n_samples: int) -> np.ndarray:
    """Example weights as (n_samples, 1), finite, at least 0, not all 0.

    Raises
    ------
    ShapeError, DataError
        Otherwise.
    """
    w = _numbers(weights, "sample_weight").astype(np.float64)
    if w.size != n_samples or w.ndim > 2:
        raise ShapeError(f"sample_weight must be ({n_samples},), got {_shape(w)}")
    w = w.reshape(-1, 1)
    _finite(w, "sample_weight")
    if (w < 0).any() or not w.any():
        raise DataError("sample_weight must be at least 0 everywhere and positive somewhere")
    return w


def columns_on_device(net: DenseNet, X: Array, Y: Array, weights: Array | None) -> tuple[Array, Array, Array | None]:
    """A batch in the network's dtype, class labels (1, m) in int64.

    Raises
    ------
    DataError
        For a label that is no class of the network.
    """
    xp, dtype, n = net.backend.xp, net.backend.dtype(net.dtype), net.sizes[-1]
    labels = net.loss.labels == "classes" and Y.shape[0] == 1
    X, targets, weights = (
        x if x is None or x.dtype == wanted else xp.astype(x, wanted)
        for x, wanted in ((X, dtype), (Y, xp.int64 if labels else dtype), (weights, dtype))
    )
    if labels:
        known = xp.logical_and(xp.greater_equal(targets, 0), xp.less(targets, n))
        if not net.backend.to_host(xp.all(xp.logical_and(known, xp.equal(targets, Y)))):
            raise DataError(f"Y must hold class labels from 0 to {n - 1}, or one-hot columns")
    return X, targets, weights


def _numbers(x: Any, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise DataError(f"{name} must hold numbers, got dtype {x.dtype}; encode text columns first (see data/)")
    return x


def _as_floats(x: np.ndarray) -> np.ndarray:
    """int64 means class labels from here on, so other integers and booleans become floats."""
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def _shape(x: np.ndarray) -> str:
    return str(tuple(int(n) for n in x.shape))


def _finite(x: np.ndarray, name: str) -> None:
    for start, part in _blocks(x) if x.dtype.kind == "f" else ():
        if not np.isfinite(part).all():
            row, column = np.argwhere(~np.isfinite(part))[0]
            raise DataError(
                f"{name} has {part[row, column]} at row {start + row}, column {column}; fill or drop such values first"
            )


def _blocks(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Consecutive rows of a matrix and where they begin: so a memory-mapped table is never in memory as a whole."""
    rows = max(_BLOCK // max(x.shape[1], 1), 1)
    for start in range(0, x.shape[0], rows):
        yield start, x[start : start + rows]


def _reject(y: np.ndarray, bad: np.ndarray, wanted: str) -> None:
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise DataError(f"y must be {wanted}, got {y[row].tolist()} at row {row}")


def check_batch(net: DenseNet, X: Array, Y: Array, weights: Array | None, micro_batch: int | None) -> int:
    """Columns on the network's device that a step can take; returns the number of examples.

    Raises
    ------
    ShapeError, DataError, ConfigError
        For arrays of another shape or device, an empty batch, or a micro-batch below 1.
    """
    n_0, m = X.shape
    outputs = (1, net.sizes[-1]) if net.loss.labels == "classes" else (net.sizes[-1],)
    for name, x in (("X", X), ("Y", Y), ("weights", weights)):
        if x is not None:
            require_owned(net.backend, name, x)
    if n_0 != net.sizes[0]:
        raise ShapeError(f"X must be ({net.sizes[0]}, m), examples as columns; got {tuple(X.shape)}")
    if len(Y.shape) != 2 or Y.shape[0] not in outputs or Y.shape[1] != m:
        raise ShapeError(f"Y must be ({net.sizes[-1]}, {m}), examples as columns; got {tuple(Y.shape)}")
    if weights is not None and tuple(weights.shape) != (1, m):
        raise ShapeError(f"weights must be (1, {m}); got {tuple(weights.shape)}")
    if m == 0:
        raise DataError("a batch needs at least one example")
    if micro_batch is not None and micro_batch < 1:
        raise ConfigError(f"micro_batch must be at least 1, got {micro_batch}")
    return int(m)
