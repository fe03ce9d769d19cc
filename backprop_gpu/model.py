"""A trained network with its preprocessing: predictions and scores of raw rows, from a run folder or a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ._notebook import html_table
from .backends.base import Backend
from .data.frames import table_of
from .data.policies import check_choice
from .data.preprocessing import Preprocessor
from .data.read_settings import ReadSettings
from .data.roles import weighted_if_there, with_weights
from .data.saved import check_fit
from .data.sources import read_table
from .data.streamed_table import StreamedTable
from .data.table import Table
from .data.targets import TargetCodec
from .errors import CheckpointError, ConfigError
from .importance import Importance, permutation_drops
from .network.custom import Custom
from .network.dense_net import DenseNet
from .network.model_file import Extras, load_model, save_model
from .run_folder import MODEL_FILE
from .streamed_rows import encoded_rows
from .training.class_metrics import calibration
from .training.metrics import METRICS, check_metrics, confusion_matrix, default_metrics, evaluate
from .training.trainer import class_indices

SHOWN = 10  # columns at either end in a notebook


class Model:
    """A trained network with everything that prediction on raw rows needs.

    Attributes
    ----------
    net : DenseNet
    preprocessor : Preprocessor
        Scaler, categories, column names, classes.
    test_rows : str or None
        The fingerprint of the run's test rows, by which changed data are recognized.
    """

    def __init__(self, net: DenseNet, preprocessor: Preprocessor, test_rows: str | None = None) -> None:
        self.net, self.preprocessor, self.test_rows = net, preprocessor, test_rows

    def read(
        self,
        source: str | os.PathLike[str],
        *,
        labelled: bool = False,
        target: Any = None,
        keep: Sequence[str] = (),
        **settings: Any,
    ) -> Table:
        """Read a file, or a built-in set, as the training table was read, but for ``settings`` (``ReadSettings``).

        ``keep``: further columns that the file may have where ``extra_columns`` is ``error``.
        """
        like = self.preprocessor.schema
        like = replace(like, others=(*like.others, *keep))
        return read_table(str(source), like=like, labelled=labelled, target=target, **settings)

    def reading(self, **settings: Any) -> ReadSettings:
        """How files are read: as the training table was, but for these ``settings``."""
        return replace(self.preprocessor.settings, **settings)

    def __repr__(self) -> str:
        codec, columns = self.preprocessor.target, len(self.preprocessor.columns)
        return f"<Model: {columns} columns, {codec.task if codec else 'no task'}, {self.net!r}>"

    def _repr_html_(self) -> str:
        """The columns as they were read, and the layers."""
        pre = self.preprocessor
        rows = [
            [name, f"{len(pre.categories[name])} categories" if name in pre.categories else "number"]
            for name in pre.columns
        ]
        if len(rows) > 2 * SHOWN:
            rows[SHOWN:-SHOWN] = [["...", f"{len(rows) - 2 * SHOWN} more"]]
        codec = pre.target
        rows += [] if codec is None else [[", ".join(codec.names), f"target: {codec.task}"]]
        return html_table(repr(self).strip("<>"), ("column", "read as"), rows) + self.net._repr_html_()

    def table(self, rows: Any, *, labelled: bool = False) -> Table:
        """Rows as the training table was read.

        Parameters
        ----------
        rows : Table, path, DataFrame, mapping of columns, list of mappings, or array (n_samples, n_features)
            A file or a built-in set (:meth:`read`); a data frame of pandas or polars, a mapping, or a mapping for each
            row (a column that it lacks is a missing value there), whose columns have the training table's names (in any
            order, others are left out); or rows of its columns in its order.
        labelled : bool, default False
            Whether the target columns are read too.

        Raises
        ------
        DataError
            Names what is missing or cannot be read.
        """
        if isinstance(rows, Table):
            return rows
        if isinstance(rows, str | os.PathLike):
            return self.read(rows, labelled=labelled)
        return table_of(rows, self.preprocessor.schema, named=self.preprocessor.named, labelled=labelled)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What each input of the network is: a column, ``column is missing`` or ``column=category``."""
        return self.preprocessor.feature_names

    def transform(self, rows: Any) -> np.ndarray:
        """The network's inputs (n_samples, n_inputs), named by :attr:`feature_names`; ``rows``: see :meth:`table`."""
        return self.preprocessor.transform(self.table(rows), self.net.dtype)

    def predict_proba(self, rows: Any) -> np.ndarray:
        """Probabilities (n_samples, n_outputs), or values as the network gives them; ``rows``: see :meth:`table`."""
        return self.net.predict_proba(self.transform(rows))

    def predict(self, rows: Any) -> np.ndarray:
        """Labels or values as they stood in the training table; ``rows``: see :meth:`table`."""
        return self.preprocessor.decode(self.predict_proba(rows))

    def evaluate(self, rows: Any, metrics: Sequence[str] | None = None) -> dict[str, Any]:
        """Cost, metrics and, for classes, the confusion matrix of labelled rows; values in the target's units.

        Rows that have the weights' column of the training table are scored by it; the matrix counts rows. Of two
        classes the second is the matrix's ``positive_class``, the one that ``f1`` is about. ``calibration`` compares
        probabilities with shares (:func:`~backprop_gpu.training.class_metrics.calibration`); ``always_predicts`` names
        the class of a model that predicts the same one for every row.
        """
        X, y, w = self._labelled(rows)
        AL, codec = self.net.predict_proba(X), self._codec
        names = list(metrics or default_metrics(codec.task))
        result: dict[str, Any] = {"rows": len(X), "cost": self.net.cost(X, y, w), **self._scores(names, AL, y, w)}
        if codec.labels:
            truth = class_indices(y)
            matrix = confusion_matrix(
                truth.reshape(-1).astype(np.int64), codec.classes(AL), n_classes=max(len(codec.labels), 2)
            )
            names, said = list(codec.class_names), np.flatnonzero(matrix.sum(axis=0))
            if len(said) == 1 and np.count_nonzero(matrix.sum(axis=1)) > 1:
                result["always_predicts"] = names[said[0]]
            result["calibration"] = calibration(truth, AL, w)
            result["confusion_matrix"] = {"classes": names, "rows_true": matrix.astype(int).tolist()}
            if codec.task == "binary":
                result["confusion_matrix"]["positive_class"] = names[1]
        return result

    def permutation_importance(
        self, rows: Any, metric: str | None = None, *, repeats: int = 5, random_state: int = 0
    ) -> Importance:
        """How much each column of the table matters: what a score loses when its values are shuffled among the rows.

        Give rows that were not trained on. Of columns that say nearly the same, each may seem to matter little, since
        the others still say it.

        Parameters
        ----------
        rows : see :meth:`table`
            Labelled.
        metric : str, optional
            Default: log_loss for classes and labels, r2 for values.
        repeats : int, default 5
            Shuffles of each column.
        random_state : int, default 0
            With the same one scikit-learn's ``permutation_importance`` shuffles alike.

        Raises
        ------
        ConfigError
            For a metric that does not go with the task, repeats below 1, or a random_state that is no seed.
        """
        if repeats < 1:
            raise ConfigError(f"repeats must be at least 1, got {repeats}")
        if not 0 <= random_state < 2**32:
            raise ConfigError(f"the seed must be at least 0 and below {2**32}, got {random_state}")
        values = self._codec.task in ("regression", "count")
        name = metric or ("r2" if values else "log_loss")
        check_metrics([name], self._codec.task)
        X, y, w = self._labelled(rows)
        columns, origins = self.preprocessor.columns, np.array(self.preprocessor.origins)
        groups = [np.flatnonzero(origins == column).tolist() for column in columns]

        def score(inputs: np.ndarray) -> float:
            return float(self._scores([name], self.net.predict_proba(inputs), y, w)[name])

        better = METRICS[name].greater_is_better
        return Importance(columns, name, *permutation_drops(X, groups, score, better, repeats, random_state))

    @property
    def _codec(self) -> TargetCodec:
        assert self.preprocessor.target is not None, "a model is always trained with a task"
        return self.preprocessor.target

    def _labelled(self, rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Inputs, encoded targets and weights of labelled rows."""
        if isinstance(rows, StreamedTable):
            return *encoded_rows(rows, self.preprocessor, self.net.dtype, held_out=True), None
        table = self._weighted(self.table(rows, labelled=True), rows)
        X = self.preprocessor.transform(table, self.net.dtype)
        return X, self.preprocessor.encode_target(table, self.net.dtype), table.weights

    def _scores(self, names: list[str], AL: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> dict[str, float]:
        """Metrics of outputs AL, values in the target's units."""
        codec, truth, outputs, labels = self._codec, y, AL, None
        if codec.task in ("regression", "count"):
            truth, outputs = codec.decode(y), codec.decode(self.net.loss.point(AL))
        elif codec.task == "multiclass":
            truth = class_indices(y)
        else:
            labels = codec.above(AL)
        return evaluate(names, codec.task, truth, outputs, w, labels)

    def set_policies(
        self,
        *,
        unknown: str | None = None,
        missing_columns: str | None = None,
        extra_columns: str | None = None,
        threshold: float | None = None,
    ) -> Model:
        """Change what happens to rows that are not as in training; None leaves a policy as it was trained.

        Parameters
        ----------
        unknown : "error", "ignore" or "missing"
            A category that training did not see; ignore: all zeros; missing: as a gap.
        missing_columns : "error" or "fill"
            A table without one of the columns; fill: each of its cells is a gap.
        extra_columns : "ignore" or "error"
            A table with columns that the training table did not have.
        threshold : float
            Two classes: the second one is predicted where its probability is above this; several labels: each one.

        Returns
        -------
        Model
            This one.

        Raises
        ------
        ConfigError
            For a value that is none of these, or a threshold of a model that has no use for it.
        """
        p = self.preprocessor
        self.preprocessor = replace(
            p,
            unknown=check_choice("unknown", unknown or p.unknown),
            missing_columns=check_choice("missing_columns", missing_columns or p.missing_columns),
            extra_columns=check_choice("extra_columns", extra_columns or p.extra_columns),
            target=p.target if threshold is None or p.target is None else p.target.with_threshold(threshold),
        )
        return self

    def _weighted(self, table: Table, rows: Any) -> Table:
        """The table with the weights of its rows, if the model knows such a column and the rows have it."""
        p = self.preprocessor
        if p.weight_column is None or table.weights is not None:
            return table
        if isinstance(rows, str | os.PathLike):
            return weighted_if_there(table, str(rows), p.weight_column, table.settings)
        if isinstance(rows, list | tuple) and any(p.weight_column in row for row in rows):
            return with_weights(table, [row.get(p.weight_column) for row in rows], p.weight_column)
        if not isinstance(rows, Table | list | tuple) and p.weight_column in getattr(rows, "columns", rows):
            return with_weights(table, rows[p.weight_column], p.weight_column)
        return table

    @classmethod
    def load(
        cls,
        run_or_file: str | os.PathLike[str],
        device: str | Backend | None = None,
        kernels: str = "auto",
        *,
        custom: Custom = (),
    ) -> Model:
        """:func:`backprop_gpu.load`."""
        return load(run_or_file, device, kernels, custom=custom)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file."""
        tensors, meta = self.preprocessor.state()
        save_model(path, self.net, Extras(tensors, {"preprocessor": meta, "test_rows": self.test_rows}))


def load(
    run_or_file: str | os.PathLike[str],
    device: str | Backend | None = None,
    kernels: str = "auto",
    *,
    custom: Custom = (),
) -> Model:
    """Load a model from a run folder or a model.safetensors file, onto any device.

    ``custom``: the activations and the loss of your own that its network has, such as ``custom=[snake, MyLoss]``.

    Raises
    ------
    CheckpointError
        If there is no model there, or it is damaged, or needs a formula that ``custom`` does not have.
    """
    path = Path(run_or_file)
    path = path / MODEL_FILE if path.is_dir() else path
    net, extras = load_model(DenseNet, path, device, kernels, custom=custom)
    if "preprocessor" not in extras.meta:
        raise CheckpointError(f"{path} holds a network without its preprocessing; load it with DenseNet.load")
    try:
        preprocessor = Preprocessor.from_state(extras.tensors, extras.meta["preprocessor"])
        check_fit(preprocessor, net.sizes, net.loss.per_target, extras.meta.get("test_rows"))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Model(net, preprocessor, extras.meta.get("test_rows"))
