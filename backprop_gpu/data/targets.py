"""Targets: from labels and numbers as read to what the loss takes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from ..errors import ConfigError, DataError, did_you_mean, shown
from .cells import is_number, listed
from .saved import check_codec
from .statistics import mean_and_scale, survey
from .table import Table, table_from_arrays

Task = Literal["binary", "multiclass", "multilabel", "regression", "count"]
TASKS: tuple[str, ...] = get_args(Task)
_MOST_CLASSES, _ROWS_OF_A_CLASS = 20, 5  # what tells classes that are called by whole numbers from values


def infer_task(table: Table, labels: str | None = None) -> tuple[str, str]:
    """The task that a table's target suggests, and why, as a clause about the target.

    Text and names of classes are classes; so are whole numbers of few different values (at most 20, five rows of each
    on average). Other numbers are values: regression. Several columns of 0 and 1 are labels.

    ``labels``: what a given loss takes (``Loss.labels``: binary, classes or values), which settles it.

    Raises
    ------
    DataError
        Without a target.
    """
    target = _raw(table)
    name = ", ".join(table.target_names)
    if labels is not None:
        single = {"binary": "binary", "classes": "multiclass"}.get(labels, "regression")
        task = "multilabel" if labels == "binary" and table.n_outputs > 1 else single
        return task, "the loss is one of that task"
    if table.n_outputs > 1:
        flags = target.dtype.kind in "biuf" and bool(np.all((target == 0) | (target == 1)))
        return ("multilabel", f"{name} hold 0 and 1 alone") if flags else ("regression", f"{name} are several targets")
    found = np.unique(target)
    k = len(table.class_names) or len(found)
    if k <= 2:
        return "binary", f"{name!r} holds two classes"
    if table.class_names or target.dtype.kind == "U":
        return "multiclass", f"{name!r} holds {k} different classes"
    whole = target.dtype.kind != "f" or bool(np.all(found == np.rint(found)))
    if whole and k <= _MOST_CLASSES and len(target) >= _ROWS_OF_A_CLASS * k:
        return "multiclass", f"{name!r} holds {k} different whole numbers"
    return "regression", f"{name!r} holds {k} different numbers"


@dataclass(frozen=True)
class TargetCodec:
    """How targets are encoded, learnt on the training rows.

    Parameters
    ----------
    task : str
        ``binary``, ``multiclass``, ``multilabel``, ``regression`` or ``count`` (non-negative, for the Poisson loss).
    names : tuple of str
        The target columns.
    flat : bool
        Whether the raw target is (n_samples,), so that decoded targets are too.
    labels : tuple of str
        binary, multiclass: the text of each label, in class order.
    integers : bool
        binary, multiclass: whether the labels were integers, and are decoded to integers.
    class_names : tuple of str
        What to call the classes; the labels themselves unless the source has names.
    mean, scale : ndarray of float64, shape (n_outputs,)
        regression: encoded = (raw - mean) / scale; 0 and 1 unless the target is standardized.
    threshold : float
        binary: the second class is predicted where its probability is above it; multilabel: so is each label.
    """

    task: str
    names: tuple[str, ...]
    flat: bool
    labels: tuple[str, ...] = ()
    integers: bool = False
    class_names: tuple[str, ...] = ()
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    threshold: float = 0.5

    def with_threshold(self, threshold: float) -> TargetCodec:
        """The same with another threshold, at least 0 and below 1; ConfigError if it is not, or of no use."""
        if self.task not in ("binary", "multilabel"):
            raise ConfigError(f"a threshold is for two classes, or for labels; the task is {self.task}: leave it out")
        if not 0.0 <= threshold < 1.0:
            raise ConfigError(f"threshold must be at least 0 and below 1, got {threshold:g}")
        return replace(self, threshold=float(threshold))

    @classmethod
    def fit(cls, table: Table, task: str, standardize: bool = False, positive: str | int | None = None) -> TargetCodec:
        """Learn from training rows; ``positive``: of two classes, the one that is to be the second.

        Raises ConfigError for a wrong setting, DataError for targets that do not fit.
        """
        if task not in TASKS:
            raise ConfigError(f"unknown task {task!r}{did_you_mean(task, TASKS)}; it is one of {', '.join(TASKS)}")
        if standardize and task != "regression":
            raise ConfigError(f"standardize_target is for regression; the task is {task}")
        names, flat = table.target_names, _raw(table).ndim == 1
        if task in ("binary", "multiclass"):
            labels, integers = _find_labels(table)
            if task == "binary" and len(labels) > 2:
                other, why = infer_task(table)
                raise DataError(
                    f"{table.source}: a binary target has two classes, this one has {len(labels)}"
                    f" ({listed(labels)}); set data.task: {other} ({why})"
                ).with_option("task", other)
            codec = cls(task, names, flat, labels, integers, table.class_names or labels)
            return codec if positive is None else codec._with_positive(str(positive))
        codec = cls(task, names, flat)
        values = codec.encode(table, "float64")  # for its checks
        if not standardize:
            return codec
        columns = table_from_arrays(values, source=table.source, feature_names=names)
        found = survey(columns)
        mean, scale = mean_and_scale(columns, found, found.mean)
        return cls(task, names, flat, mean=mean, scale=scale)

    def class_number(self, name: str, setting: str) -> int:
        """The number of a class, by its name or as it stands in the target; ConfigError if there is none."""
        for names in (self.class_names, self.labels):
            if name in names:
                return names.index(name)
        hint = did_you_mean(name, self.class_names)
        raise ConfigError(f"{setting}: there is no class {shown(name)}{hint}; they are {listed(self.class_names)}")

    def _with_positive(self, name: str) -> TargetCodec:
        if self.task != "binary":
            raise ConfigError(f"positive names one of two classes; the task is {self.task}: leave it out")
        if self.class_number(name, "data.positive") == 1:
            return self
        return replace(self, labels=self.labels[::-1], class_names=self.class_names[::-1])

    @property
    def n_outputs(self) -> int:
        """Units of the output layer: one for binary, one per class, label or target column otherwise."""
        return len(self.labels) if self.task == "multiclass" else len(self.names)

    def encode(self, table: Table, dtype: Any = "float32") -> np.ndarray:
        """Encode the targets of a table.

        Returns
        -------
        ndarray
            binary: 0/1 (n_samples, 1); multiclass: class indices, int64 (n_samples,); multilabel: 0/1
            (n_samples, n_labels); regression and count: (n_samples, n_outputs). All but class indices are in ``dtype``.

        Raises
        ------
        DataError
            For a missing or infinite target, a label that the training rows did not have, a value other than 0 and 1
            (multilabel), a negative count, or another number of target columns than in training.
        """
        _raw(table)
        if table.n_outputs != len(self.names):
            n, m = table.n_outputs, len(self.names)
            raise DataError(f"{table.source}: the target has {n} columns, in training it had {m}")
        if self.labels:
            indices = self._indices(table)
            return indices if self.task == "multiclass" else indices[:, None].astype(dtype)
        values = _floats(table)
        if self.task == "multilabel":
            _refuse(table, (values != 0.0) & (values != 1.0), "labels must be 0 or 1")
        elif self.task == "count":
            _refuse(table, values < 0.0, "counts must not be negative")
        elif self.mean is not None:
            values = (values - self.mean) / self.scale
        with np.errstate(over="ignore"):
            encoded = values.astype(dtype)
        _refuse(table, ~np.isfinite(encoded), f"the value does not fit {encoded.dtype}; standardize the target")
        return encoded

    def classes(self, outputs: np.ndarray) -> np.ndarray:
        """Class numbers (n_samples,), in the order of ``labels``; ``outputs`` as for :meth:`decode`."""
        outputs = np.asarray(outputs)
        if self.task == "binary":
            return self.above(outputs.reshape(len(outputs))).astype(np.intp)
        return np.argmax(outputs, axis=1) if outputs.ndim == 2 else outputs

    def above(self, outputs: np.ndarray) -> np.ndarray:
        """Whether probabilities are above the threshold, which has more digits than a float32."""
        return np.asarray(outputs).astype(np.float64) > self.threshold

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Turn encoded targets, or what the network predicts, into targets as they were read.

        ``outputs``: binary and multilabel take probabilities or 0/1 (n_samples, n_outputs), and 1 is what is above the
        threshold; multiclass takes probabilities (n_samples, n_classes) or class indices (n_samples,); regression and
        count take values (n_samples, n_outputs). Returns labels or values, (n_samples,) where the raw target was so,
        else (n_samples, n_outputs); integers, float64 or strings.
        """
        outputs = np.asarray(outputs)
        if self.labels:
            indices = self.classes(outputs)
            labels = np.array([int(label) for label in self.labels] if self.integers else self.labels)
            return labels[indices] if self.flat else labels[indices][:, None]
        if self.task == "multilabel":
            values = self.above(outputs).astype(np.int64)
        else:
            values = outputs.astype(np.float64)
            values = values.reshape(len(values), -1)
            if self.mean is not None and self.scale is not None:
                each = values.shape[1] // len(self.names)
                values = values * np.repeat(self.scale, each) + np.repeat(self.mean, each)
        values = values.reshape(len(values), -1)
        return values[:, 0] if self.flat and values.shape[1] == 1 else values

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return (tensors, JSON-able dict) from which :meth:`from_state` makes the same codec, to the bit."""
        tensors = {key: value for key in ("mean", "scale") if (value := getattr(self, key)) is not None}
        kept = ("task", "names", "flat", "labels", "integers", "class_names", "threshold")
        meta = {key: list(value) if isinstance(value := getattr(self, key), tuple) else value for key in kept}
        return tensors, meta

    @classmethod
    def from_state(cls, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> TargetCodec:
        """Undo :meth:`state`."""
        saved: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in meta.items()}
        made = cls(**saved, mean=tensors.get("mean"), scale=tensors.get("scale"))
        check_codec(made, TASKS)
        return made

    def _indices(self, table: Table) -> np.ndarray:
        texts, _ = _label_texts(table)
        known = np.array(self.labels)
        order = np.argsort(known)
        at = np.minimum(np.searchsorted(known, texts, sorter=order), len(known) - 1)
        indices = order[at]
        if np.any(unknown := known[indices] != texts):
            i = int(np.argmax(unknown))
            raise DataError(
                f"{table.where(i)}: the label {str(texts[i])!r} is not a class of the training rows"
                f" ({listed(self.labels)})"
            )
        return indices.astype(np.int64)


def _raw(table: Table) -> np.ndarray:
    if table.target is None:
        raise DataError(f"{table.source} has no target column")
    return table.target


def _find_labels(table: Table) -> tuple[tuple[str, ...], bool]:
    """The distinct labels, in numeric order if they are integers; all that the source names, if it names them."""
    texts, integers = _label_texts(table)
    found = np.unique(texts).tolist()
    if len(found) < 2:
        raise DataError(f"{table.source}: the training rows hold one class only ({found[0]}); at least two are needed")
    if table.class_names:
        return tuple(str(k) for k in range(len(table.class_names))), True
    if integers:
        found.sort(key=int)
    elif all(map(is_number, found)):  # codes, such as 007 or +1
        found.sort(key=float)
    return tuple(found), integers


def _label_texts(table: Table) -> tuple[np.ndarray, bool]:
    """Labels as text (n_samples,), and whether they are integers (1.0 is: a column with a gap once was)."""
    raw = _raw(table)
    if table.n_outputs != 1:
        n = table.n_outputs
        error = DataError(f"{table.source}: a class label is one target column, found {n}; set data.task: multilabel")
        raise error.with_option("task", "multilabel")
    raw = np.asarray(raw).reshape(len(raw))
    if raw.dtype.kind == "U":
        _refuse(table, raw == "", "the target is missing")
        return raw, False
    values = _floats(table)[:, 0] if raw.dtype.kind == "f" else raw
    if raw.dtype.kind == "f":
        fractional = (values != np.rint(values)) | (np.abs(values) > 2.0**53)
        why = "a class label must be an integer or text; is this a regression? Then set data.task: regression"
        _refuse(table, fractional, why, ("task", "regression"))
    return values.astype(np.int64).astype(str), True


def _floats(table: Table) -> np.ndarray:
    """Targets as float64 (n_samples, n_outputs); DataError at the first that is text, missing or infinite."""
    raw = np.asarray(_raw(table))
    if raw.dtype.kind == "U":
        flat = raw.reshape(len(raw), -1)
        _refuse(table, [[not is_number(cell) for cell in row] for row in flat], "the target is not a number")
    values = raw.reshape(len(raw), -1).astype(np.float64)
    _refuse(table, np.isnan(values), "the target is missing")
    _refuse(table, np.isinf(values), "the target is infinite")
    return values


def _refuse(table: Table, wrong: Any, why: str, option: tuple[str, Any] | None = None) -> None:
    """Raise for the first target that is wrong; ``wrong`` is (n_samples,) or (n_samples, n_outputs)."""
    wrong = np.asarray(wrong, dtype=bool).reshape(table.n_samples, -1)
    if np.any(wrong):
        i, j = np.argwhere(wrong)[0]
        value = np.asarray(_raw(table)).reshape(table.n_samples, -1)[i, j]
        error = DataError(f"{table.where(i)}, target {table.target_names[j]!r} is {value.item()!r}: {why}")
        error.option = option
        raise error
