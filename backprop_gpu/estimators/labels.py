"""Labels in the user's words and as the network's targets."""

from __future__ import annotations

from numbers import Number, Real
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.multiclass import type_of_target, unique_labels

from ..maths.losses import Loss, get_loss
from ..training.class_weights import weights_by_class

SEVERAL = "multiclass-multioutput"


class MultiOutputLabels:
    """Several labels of several classes each, with the methods of scikit-learn's LabelBinarizer.

    Attributes
    ----------
    classes_ : list of arrays
        Those of each column of y, sorted.
    y_type_ : str
        ``"multiclass-multioutput"``.
    """

    y_type_ = SEVERAL

    def fit(self, y: np.ndarray) -> MultiOutputLabels:
        """Take the classes of each column of y (n_samples, n_labels)."""
        return self.of([np.unique(column) for column in y.T])

    def of(self, classes: Any) -> MultiOutputLabels:
        """Take these classes, a list of arrays."""
        self.classes_ = [np.unique(c) for c in classes]
        return self

    @property
    def groups(self) -> list[int]:
        """The number of classes of each label."""
        return [len(c) for c in self.classes_]

    def transform(self, y: np.ndarray) -> np.ndarray:
        """One-hot columns (n_samples, sum of groups), side by side."""
        columns = [column[:, None] == c for column, c in zip(y.T, self.classes_, strict=True)]
        return np.hstack(columns).astype(np.float64)

    def split(self, AL: np.ndarray) -> list[np.ndarray]:
        """The columns of each label."""
        return np.split(AL, np.cumsum(self.groups)[:-1], axis=1)

    def inverse_transform(self, AL: np.ndarray) -> np.ndarray:
        """The most probable labels (n_samples, n_labels)."""
        parts = zip(self.split(AL), self.classes_, strict=True)
        return np.column_stack([c[p.argmax(axis=1)] for p, c in parts])


def new_labels(y: Any) -> Any:
    """The encoder for labels y, fitted to them.

    Raises
    ------
    ValueError
        For labels of one column that have no order among them: text and numbers, or None.
    """
    columns = y.T if y.ndim == 2 else [y]
    for column in columns if y.dtype.kind == "O" else []:
        kinds = {"number" if isinstance(label, Number) else type(label).__name__ for label in column}
        if len(kinds) > 1 or kinds == {"NoneType"}:
            raise ValueError(f"y must hold labels of one kind, none of them missing; got {', '.join(sorted(kinds))}.")
    return MultiOutputLabels().fit(y) if is_several(y) else binarizer_of(y)


def binarizer_of(y: Any) -> LabelBinarizer:
    """scikit-learn's LabelBinarizer, fitted: whole numbers are gone through once, which it does several times."""
    labels = LabelBinarizer()
    if y.ndim != 1 or y.dtype.kind not in "biu" or not y.dtype.isnative:
        return labels.fit(y)
    classes = np.unique(y)
    labels.y_type_ = "binary" if len(classes) <= 2 else "multiclass"
    labels.sparse_input_, labels.classes_ = False, classes
    return labels


def is_several(y: Any) -> bool:
    """Whether y is several columns of several classes each; a table's columns may be of several types."""
    if np.ndim(y) != 2 or np.shape(y)[1] < 2:
        return False
    if y.dtype.kind == "O" and any(isinstance(label, str) for label in y[0]):
        return True
    return bool(type_of_target(y) == SEVERAL)


def known_and_given(labels: Any, y: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(classes of the encoder, those in y), one pair for each label.

    Raises
    ------
    ValueError
        If y has another number of columns.
    """
    if labels.y_type_ != SEVERAL:
        width = len(labels.classes_) if labels.y_type_.startswith("multilabel") else 1
        if (np.shape(y)[1] if np.ndim(y) == 2 else 1) != width:
            columns = f"{width} columns of labels" if width > 1 else "one label for each row"
            raise ValueError(f"y must have {columns}, as in the fit; got shape {np.shape(y)}.")
        return [(labels.classes_, np.unique(y) if np.ndim(y) == 1 else unique_labels(y))]
    if np.ndim(y) != 2 or y.shape[1] != len(labels.classes_):
        raise ValueError(f"y must have {len(labels.classes_)} columns of labels, got shape {np.shape(y)}.")
    return [(c, np.unique(column)) for c, column in zip(labels.classes_, y.T, strict=True)]


def targets_of(labels: Any, y: Any) -> np.ndarray:
    """Class indices (n, 1), int64, for one label of several classes; columns of 0 and 1 otherwise."""
    if labels.y_type_ == "multiclass":
        return np.searchsorted(labels.classes_, y).astype(np.int64).reshape(-1, 1)
    if labels.y_type_ == "binary":
        two = len(labels.classes_) == 2
        return np.asarray(y == labels.classes_[-1] if two else np.zeros(len(y)), np.float64).reshape(-1, 1)
    return np.asarray(labels.transform(y), np.float64)


def classes_of(labels: Any) -> list[np.ndarray]:
    """The classes of each label that a row has: of 0/1 labels 0 and 1."""
    if labels.y_type_.startswith("multilabel"):
        return [np.arange(2)] * len(labels.classes_)
    return list(labels.classes_) if labels.y_type_ == SEVERAL else [labels.classes_]


def codes_of(labels: Any, Y: np.ndarray) -> list[np.ndarray]:
    """For each label, which of its classes the rows have, (n,) each, from targets as :func:`targets_of` makes them."""
    if labels.y_type_ == SEVERAL:
        return [part.argmax(axis=1) for part in labels.split(Y)]
    return [column.astype(np.intp) for column in Y.T]


def class_weights(given: Any, labels: Any, Y: np.ndarray) -> list[np.ndarray]:
    """The weight of each class, (n_classes,) for each label, from ``class_weight`` and the rows' targets Y.

    A dict is about all classes of the fit, whether or not these rows have them; what it leaves out counts 1.
    "balanced": see ``training.class_weights``.

    Raises
    ------
    ValueError
        For several labels without an entry for each; for a dict with a class that y has not, or a negative weight.
    """
    classes, codes = classes_of(labels), codes_of(labels, Y)
    several = labels.y_type_ == SEVERAL or labels.y_type_.startswith("multilabel")
    each = given if several and isinstance(given, list) else [given] * (len(classes) if given == "balanced" else 1)
    if len(each) != len(classes) or any(isinstance(entry, list) for entry in each):
        wanted = f"a list of {len(classes)} dicts, one for each column of y" if several else "a dict of {label: weight}"
        raise ValueError(f'class_weight must be {wanted}, or "balanced"; got {given!r}.')
    return [_weights_of(*three) for three in zip(each, classes, codes, strict=True)]


def _weights_of(given: Any, classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Those of one label's classes."""
    if given == "balanced":
        return weights_by_class("balanced", codes, len(classes))
    names, given = classes.tolist(), given or {}
    unknown = [name for name in given if name not in names]
    if unknown and any(name not in given for name in names):  # most likely a class in two spellings
        raise ValueError(f"class_weight names {unknown}, which y has not; the classes of y are {names}.")
    wrong = {name: w for name, w in given.items() if not (isinstance(w, Real) and 0.0 <= float(w) < np.inf)}
    if wrong:
        raise ValueError(f"the weights in class_weight must be numbers from 0, got {wrong}.")
    return np.array([float(given.get(name, 1.0)) for name in names])


def loss_of(labels: Any, smoothing: float) -> tuple[Loss, int]:
    """The loss for such labels, and the network's outputs."""
    smooth = {"label_smoothing": smoothing}
    if labels.y_type_ == SEVERAL:
        return get_loss({"name": "grouped_cross_entropy", "groups": labels.groups, **smooth}), sum(labels.groups)
    if labels.y_type_ == "multiclass":
        return get_loss({"name": "categorical_cross_entropy", **smooth}), len(labels.classes_)
    return get_loss({"name": "binary_cross_entropy", **smooth}), len(labels.classes_) if labels.y_type_.startswith(
        "multilabel"
    ) else 1


def labels_from(labels: Any, AL: np.ndarray) -> np.ndarray:
    """The most probable labels (n,) or (n, n_labels) from the network's outputs (n, n_L)."""
    if labels.y_type_ == "multiclass":
        return np.take(labels.classes_, AL.argmax(axis=1))
    if labels.y_type_ == "binary" and len(labels.classes_) == 2:
        return np.take(labels.classes_, (AL[:, 0] > 0.5).astype(np.intp))
    return np.asarray(labels.inverse_transform(AL if AL.shape[1] > 1 else AL.ravel()))
