"""Rows that a fit reads where they lie, and those that are replaced under a recorded program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from scipy import sparse
from support.estimators import SETS, distance, fitted, rows, same_bits

import backprop_gpu
from backprop_gpu import MLPClassifier, MLPRegressor
from backprop_gpu.estimators import order

VALUES = ("regression", "counts", "outputs")


def model_for(target: str, **settings: Any) -> Any:
    kind = MLPRegressor if target in VALUES else MLPClassifier
    return kind(**{"hidden_layer_sizes": (5,), "max_iter": 3, "batch_size": 50, "random_state": 0, **settings})


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """Filled with what batches are gathered from, as it is placed."""
    found: list[list[Any]] = []
    place = order.OrderedBatches._place

    def noted(self: order.OrderedBatches) -> None:
        place(self)
        found.append(self.sources)

    monkeypatch.setattr(order.OrderedBatches, "_place", noted)
    return found


def laid_out(X: np.ndarray) -> dict[str, np.ndarray]:
    """The same rows in other ways: whether a fit can read them where they lie is in the name."""
    shifted = np.zeros(X.nbytes + 1, np.uint8)[1:].view(X.dtype).reshape(X.shape)
    shifted[...] = X
    locked = X.copy()
    locked.flags.writeable = False
    return {"here": X, "here, locked": locked, "columns": np.asfortranarray(X), "every second": np.repeat(X, 2, 0)[::2],
            "bytes swapped": X.astype(">f8"), "shifted": shifted}  # fmt: skip


@pytest.mark.parametrize("kernels", ["compiled", "host", "reference"])
@pytest.mark.parametrize("target", SETS)
def test_rows_are_read_where_they_lie_and_never_written(target: str, kernels: str, sources: list[list[Any]]) -> None:
    X, y = rows(target)
    wanted = None
    for name, given in laid_out(X).items():
        before = given.copy()
        model = fitted(model_for(target, kernels=kernels), given, y)
        assert np.shares_memory(sources[-1][0], given) == name.startswith("here"), name
        assert np.array_equal(given, before)
        wanted = wanted or model
        assert same_bits(model, wanted), name


@pytest.mark.parametrize("target", SETS)
def test_partial_fit_keeps_rows_of_its_own(target: str, sources: list[list[Any]]) -> None:
    X, y = rows(target)
    model, alone = model_for(target), model_for(target)
    classes = {} if target in VALUES else {"classes": [0, 1, 2] if target == "multilabel" else np.unique(y)}
    parts = [X[:60].copy(), X[60:].copy()]
    for each, part in zip(parts, (slice(60), slice(60, None)), strict=True):
        before = each.copy()
        model.partial_fit(each, y[part], **classes)
        alone.partial_fit(X[part], y[part], **classes)
        assert np.array_equal(each, before)
    assert not any(np.shares_memory(sources[0][0], each) for each in parts)
    assert len(sources) == 2, "one for each model: other rows go through the same program"
    assert same_bits(model, alone)


def test_lent_rows_are_not_replaced() -> None:
    X, y = rows("regression")
    model = fitted(model_for("regression"), X, y)
    net = model.network()
    batches = order.OrderedBatches(net, X, y[:, None], None, batch_size=50, shuffle=True, lent=True)
    before = X.copy()
    with pytest.raises(AssertionError, match="not ours"):
        batches.refill(X + 1.0, y[:, None], None)
    assert np.array_equal(X, before)


def test_a_fit_after_partial_fit_reads_its_own_rows() -> None:
    X, y = rows("multiclass")
    mixed, plain = model_for("multiclass"), model_for("multiclass")
    mixed.partial_fit(X[:60], y[:60], classes=np.unique(y))
    before = X.copy()
    assert same_bits(fitted(mixed, X, y), fitted(plain, X, y))
    assert np.array_equal(X, before)


def test_other_rows_come_with_their_own_weights() -> None:
    X, y = rows("multiclass")
    models = [m.MLPClassifier((5,), batch_size=50, random_state=0) for m in (theirs, backprop_gpu)]
    for low, high in ((0.5, 2.0), (3.0, 9.0)):
        weights = np.random.default_rng(0).uniform(low, high, len(X))
        for model in models:
            model.partial_fit(X, y, weights, classes=np.unique(y))
    assert distance(*models) < 1e-12
    assert models[1].loss_ == pytest.approx(models[0].loss_, rel=1e-12)


def test_every_window_of_a_sparse_table_has_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "WINDOW_BYTES", 2**11)  # of 120 rows a third
    X, y = rows("multiclass")
    weights = np.linspace(0.5, 9.0, len(X))
    given: dict[str, Any] = {"hidden_layer_sizes": (5,), "batch_size": 20, "max_iter": 3, "random_state": 0}
    models = [m.MLPClassifier(**given) for m in (theirs, backprop_gpu)]
    a, b = (fitted(model, sparse.csr_matrix(X), y, sample_weight=weights) for model in models)
    assert distance(a, b) < 1e-12
