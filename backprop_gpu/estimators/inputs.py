"""What a fit is given: arrays of any namespace, checked and weighted rows, and the validation set beside them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils._array_api import _convert_to_numpy, get_namespace_and_device
from sklearn.utils.validation import _check_sample_weight, validate_data

from ..training.validation import ValidationSet
from .params import batch_rows, check_given, check_shared, invalid

FLOATS = (np.float64, np.float32)


# -- arrays of any namespace -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """Where an input lives: its namespace and device; ``xp`` is None for NumPy, lists, tables and sparse matrices."""

    xp: Any
    device: Any

    @property
    def name(self) -> str:
        """The namespace with its device, for comparison and messages."""
        return "numpy" if self.xp is None else f"{self.xp.__name__} on {self.device}"


def origin_of(X: Any) -> Origin:
    """Where X lives; NumPy unless array_api_dispatch is on."""
    if not get_config()["array_api_dispatch"] or isinstance(X, np.ndarray):
        return Origin(None, None)
    xp, is_array_api, device = get_namespace_and_device(X)
    plain = not is_array_api or xp.__name__.rpartition(".")[2] == "numpy"
    return Origin(None, None) if plain else Origin(xp, device)


def dense(X: Any) -> np.ndarray:
    """Rows as the network takes them, of a sparse table too."""
    return X.toarray() if issparse(X) else X


def on_host(x: Any) -> Any:
    """An array as a NumPy array; anything else as it is."""
    origin = origin_of(x)
    return x if origin.xp is None else _convert_to_numpy(x, origin.xp)


def in_kind(result: np.ndarray, origin: Origin) -> Any:
    """A result in the namespace and on the device of an input; text, which no other namespace holds, stays NumPy's."""
    if origin.xp is None or result.dtype.kind not in "biuf":
        return result
    return origin.xp.asarray(result, device=origin.device)


def check_origin(origin: Origin, fitted: str, method: str) -> None:
    """That a method's input lives where ``fit``'s did, under array_api_dispatch, where that is scikit-learn's rule.

    Raises
    ------
    ValueError
        Naming both.
    """
    if get_config()["array_api_dispatch"] and origin.name != fitted:
        raise ValueError(
            f"Inputs passed to {method}() must use the same namespace and the same device as those passed to fit(): "
            f"got {origin.name}, fitted on {fitted}; convert the input, or fit again."
        )


# -- rows and validation sets ----------------------------------------------------------------------------------------


@dataclass
class Rows:
    """Checked rows on the host: X (n, n_0) dense or sparse; Y as the loss takes it; weights (n, 1) or None."""

    X: Any
    Y: np.ndarray
    weights: np.ndarray | None

    @property
    def n_weighted(self) -> int:
        """How many rows have a weight."""
        return len(self.Y) if self.weights is None else int(np.count_nonzero(self.weights))

    def weighted(self) -> Rows:
        """The rows that have a weight: one of weight 0 is no row."""
        if self.weights is None or self.n_weighted == len(self.Y):
            return self
        return self.take(np.flatnonzero(self.weights))

    def take(self, rows: np.ndarray) -> Rows:
        """Some of the rows; a sparse table stays sparse."""
        X = self.X.tocsr() if issparse(self.X) else self.X
        return Rows(X[rows], self.Y[rows], None if self.weights is None else self.weights[rows])


def checked_rows(e: Any, X: Any, y: Any, sample_weight: Any, first: bool, incremental: bool) -> tuple[Rows, Any]:
    """(the rows, what ``class_weight`` means for them); ``classes_`` and the features' names are settled here."""
    check_given(e, e._solver())
    check_shared(e)
    origin, sample_weight = origin_of(X), on_host(sample_weight)
    X, Y = e._encode(on_host(X), on_host(y), first=first, incremental=incremental)
    e._fitted_on = origin.name
    if sample_weight is not None:
        sample_weight = _check_sample_weight(sample_weight, X)
    by_class = e._class_weights(Y, incremental)
    weights = e._row_weights(Y, by_class, sample_weight)
    if weights is not None and not weights.any():
        raise ValueError("Every row has weight 0; class_weight and sample_weight must leave some of the rows.")
    return Rows(X, Y, None if weights is None else weights.reshape(-1, 1)), by_class


def given_validation_set(e: Any, by_class: Any, X_val: Any, y_val: Any, sample_weight_val: Any) -> ValidationSet | None:
    """A validation set that was given to ``fit``, checked and weighted as the training rows are."""
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val go together: pass both, or neither.")
    if X_val is None:
        if sample_weight_val is not None:
            raise ValueError("sample_weight_val goes with X_val and y_val: pass all three, or leave it out.")
        return None
    options = {"accept_sparse": ["csr", "csc"], "multi_output": True, "dtype": e.dtype or FLOATS}
    options |= {"ensure_all_finite": e._finite()}
    weights, name = sample_weight_val, "X_val, y_val"
    try:
        X, y = validate_data(e, on_host(X_val), on_host(y_val), **options, reset=False)
        if sample_weight_val is not None:
            name = "sample_weight_val"
            weights = _check_sample_weight(on_host(sample_weight_val), X, ensure_non_negative=True)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    codes = e._codes(y, "y_val")
    Y, weights = e._one_hot(codes), e._row_weights(codes, by_class, weights)
    if Y.shape[1] != e.n_outputs_:
        raise ValueError(f"y_val has {Y.shape[1]} outputs and y {e.n_outputs_}.")
    return ValidationSet(dense(X), Y, None if weights is None else weights.reshape(-1, 1))


def divided(
    e: Any, rows: Rows, validation: ValidationSet | None, incremental: bool
) -> tuple[Rows, ValidationSet | None]:
    """(rows to train on, validation set): the one given to ``fit``, or rows split off for ``early_stopping``."""
    if e.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    if validation is not None and e.early_stopping and len(validation.weighted) < 2:
        raise ValueError(
            "X_val is too small for early_stopping: it needs at least two rows that have a weight. Pass more rows."
        )
    if validation is None and (e.early_stopping or hasattr(e.validation_fraction, "split")):
        inside, validation = split_apart(e, rows)
        rows = rows.take(inside)
    if validation is None and e.validation_metrics and not incremental:
        reason = "they are of a validation set: set early_stopping=True or pass X_val, or leave them out"
        raise invalid(e, "validation_metrics", reason)
    scored = validation is not None and e.early_stopping and not is_classifier(e) and np.ptp(rows.Y, axis=0).any()
    if scored and validation is not None and not np.ptp(validation.weighted, axis=0).any():
        warnings.warn(
            "The targets of the validation set are all the same: their R2, which early_stopping looks at, "
            "tells no epoch from another, and the first is kept. Hold out rows whose targets differ.",
            stacklevel=6,
        )
    n = rows.X.shape[0]
    if e.batch_size != "auto" and e.batch_size > n:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
        )
    # Where some batch would have no row with a weight, or one whose statistics are those of few.
    if rows.n_weighted < -(-n // batch_rows(e, n)) or np.any(e.batch_norm):
        rows = rows.weighted()
    return rows, validation


def split_apart(e: Any, rows: Rows) -> tuple[np.ndarray, ValidationSet]:
    """(which rows to train on, the others), by scikit-learn's own split or the estimator's splitter.

    Raises
    ------
    ValueError
        If fewer than two rows that have a weight would be held out.
    """
    fraction = e.validation_fraction
    if hasattr(fraction, "split"):
        inside, outside = next(iter(fraction.split(rows.X, rows.Y[:, 0])))
    else:
        inside, outside = train_test_split(
            np.arange(rows.X.shape[0]),
            random_state=e._random_state,
            test_size=fraction,
            stratify=e._stratify(rows.Y),
        )
    out = rows.take(outside)
    validation = ValidationSet(dense(out.X), e._one_hot(out.Y), out.weights)
    if len(validation.weighted) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return inside, validation
