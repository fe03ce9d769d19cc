"""The fit of a run: its rows encoded and weighted, the threshold chosen, and what the model scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .data.column_summary import summary
from .data.streamed_table import MOST_IN_MEMORY, StreamedTable
from .data.table import Table
from .data.targets import TargetCodec
from .errors import DataError
from .network.data_start import initialize_on_data
from .network.row_source import RowSource
from .streamed_rows import encoded_rows
from .training.history import History
from .training.thresholds import best_threshold

if TYPE_CHECKING:
    from .build import Experiment

Rows = tuple[Any, ...]
"""X, y and, if the rows have any, their weights."""


def encoded(experiment: Experiment) -> tuple[Rows, Rows | None]:
    """Training and validation rows as the network takes them; what is wrong with test rows is found here too."""
    pre, dtype = experiment.model.preprocessor, experiment.model.net.dtype

    def rows(table: Table | StreamedTable | None) -> Rows | None:
        if table is None:
            return None
        if isinstance(table, StreamedTable):
            return encoded_rows(table, pre, dtype, held_out=table is not experiment.train)
        weights = () if table.weights is None else (table.weights,)
        return pre.transform(table, dtype), pre.encode_target(table, dtype), *weights

    train, validation, _ = map(rows, (experiment.train, experiment.validation, experiment.test))
    assert train is not None, "there are training rows"
    if validation is None and not isinstance(experiment.config.training.threshold, float):
        raise DataError("training.threshold is chosen on validation rows, and there are none; give a number")
    return train, validation


def by_number(
    class_weight: Mapping[str, float] | str | None, codec: TargetCodec | None
) -> dict[int, float] | str | None:
    """Class weights by the numbers of the classes, from those by their names."""
    if class_weight is None or isinstance(class_weight, str) or codec is None:
        return class_weight  # type: ignore[return-value]
    return {codec.class_number(name, "training.class_weight"): weight for name, weight in class_weight.items()}


def rows_to_score(train: Rows, n_validation: int) -> Rows:
    """Training rows that are scored after each epoch as the validation rows are, so that the two can be compared.

    Of many rows, as many as there are for validation, or a thousand: a curve needs no more.
    """
    n = len(train[0])
    most = MOST_IN_MEMORY if isinstance(train[0], RowSource) else n
    rows = np.linspace(0, n - 1, min(n, most, max(n_validation, 1000))).astype(np.int64)
    return tuple(part[rows] for part in train)


def fit(experiment: Experiment, train: Rows, held_out: Rows | None, **resume: Any) -> History:
    """Train, and choose the threshold that the configuration asks for on the validation rows."""
    asked, model = experiment.config.training.threshold, experiment.model
    X, y, *weights = train
    if experiment.config.model.initialize_on_data and resume.get("resume") is None:
        initialize_on_data(model.net, X[:MOST_IN_MEMORY] if isinstance(X, RowSource) else X)
    history = experiment.trainer.fit(X, y, sample_weight=weights[0] if weights else None, validation=held_out, **resume)
    if isinstance(asked, float):
        chosen = asked
    else:
        assert held_out is not None, "checked where rows are encoded"
        by = asked if isinstance(asked, str) else (asked.false_positive, asked.false_negative)
        X, y, *weights = held_out
        chosen = best_threshold(y, model.net.predict_proba(X), by, weights[0] if weights else None)
    if chosen != 0.5:
        model.set_policies(threshold=chosen)
    return history


def threshold_of(experiment: Experiment) -> dict[str, float]:
    """The threshold of two classes, unless it is one half."""
    codec = experiment.model.preprocessor.target
    return {} if codec is None or codec.threshold == 0.5 else {"threshold": codec.threshold}


def metrics_of(experiment: Experiment, history: History) -> dict[str, Any]:
    """What metrics.json holds."""
    net = experiment.model.net
    parts = {"train": experiment.train, "validation": experiment.validation, "test": experiment.test}
    if isinstance(experiment.train, StreamedTable):
        parts["train"] = experiment.train.sample()  # what is trained on is scored to compare, not to judge
    scores = {name: experiment.model.evaluate(table) for name, table in parts.items() if table is not None}
    return {
        "device": net.backend.name,
        "kernels": net.kernels_kind,
        "dtype": net.dtype,
        "sizes": list(net.sizes),
        "parameters": net.n_parameters,
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "stopped": history.stopped,
        "steps": experiment.trainer.step.t,
        "seconds": history.epochs[-1].seconds,
        "task": experiment.config.data.task,
        **threshold_of(experiment),
        "columns": [vars(line) for line in summary(experiment.model.preprocessor)],
        "notes": [*experiment.train.notes, *history.notes],
        **scores,
    }
