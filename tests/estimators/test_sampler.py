"""Rows that a fit reads where they lie, and those that are replaced under a recorded program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from scipy import sparse
from sklearn import ensemble
from support.estimators import SETS, distance, fitted, rows, same_bits

import backprop_gpu
from backprop_gpu import MLPClassifier, MLPRegressor
from backprop_gpu.training import reshuffling
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.reshuffling import ReshufflingSampler

VALUES = ("regression", "counts", "outputs")


def model_for(target: str, **settings: Any) -> Any:
    kind = MLPRegressor if target in VALUES else MLPClassifier
    return kind(**{"hidden_layer_sizes": (5,), "max_iter": 3, "batch_size": 50, "random_state": 0, **settings})


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """Filled with what batches are gathered from, as it is placed."""
    found: list[list[Any]] = []
    place = Batches._place

    def noted(self: Batches) -> None:
        place(self)
        found.append(self.sources)

    monkeypatch.setattr(Batches, "_place", noted)
    return found


def laid_out(X: np.ndarray) -> dict[str, np.ndarray]:
    """The same rows in other ways: whether a fit can read them where they lie is in the name."""
    shifted = np.zeros(X.nbytes + 1, np.uint8)[1:].view(X.dtype).reshape(X.shape)
    shifted[...] = X
    locked = X.copy()
    locked.flags.writeable = False
    return {"here": X, "here, locked": locked, "columns": np.asfortranarray(X), "every second": np.repeat(X, 2, 0)[::2],
            "bytes swapped": X.astype(">f8"), "shifted": shifted}  # fmt: skip


@pytest.mark.parametrize("kernels", ["native", "reference"])
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
    batches = reshuffling.batches_over(net, (X, y[:, None], None), batch_size=50, shuffle=True, copy=False)
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


def test_a_sparse_table_has_the_even_batches_of_a_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a normalized layer 117 rows, 20 at a time, are 3 batches of 20 and 3 of 19."""
    X, y = (a[:117] for a in rows("regression"))
    monkeypatch.setattr(reshuffling, "DENSE_BYTES", 0)
    a, b = (fitted(model_for("regression", batch_norm=True, batch_size=20), x, y) for x in (X, sparse.csr_matrix(X)))
    assert a._optimizer.t == b._optimizer.t == 3 * 6
    assert same_bits(a, b)


def test_every_batch_of_a_large_sparse_table_has_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reshuffling, "DENSE_BYTES", 0)
    X, y = rows("multiclass")
    weights = np.linspace(0.5, 9.0, len(X))
    given: dict[str, Any] = {"hidden_layer_sizes": (5,), "batch_size": 20, "max_iter": 3, "random_state": 0}
    models = [m.MLPClassifier(**given) for m in (theirs, backprop_gpu)]
    a, b = (fitted(model, sparse.csr_matrix(X), y, sample_weight=weights) for model in models)
    assert distance(a, b) < 1e-12


def test_every_batch_gets_a_row_that_counts_and_other_orders_stay() -> None:
    rng = np.random.default_rng(0)
    for n, batch_size, counting in ((201, 200, 100), (60, 7, 9), (60, 7, 30), (5, 1, 5), (10, 10, 1)):
        weights = np.zeros((n, 1))
        weights[rng.permutation(n)[:counting]] = 2.0
        sizes = [min(batch_size, n - start) for start in range(0, n, batch_size)]
        ours, plain = ReshufflingSampler(n, sizes, True), ReshufflingSampler(n, sizes, True)
        ours.set_weights(weights)
        for o in (ours, plain):
            o.restart(np.random.RandomState(3))
        same = True  # until the first time that something had to be swapped
        for _ in range(50):
            got, wanted = ours.next_order(), plain.next_order()
            assert np.array_equal(np.sort(got), np.arange(n))
            assert all(weights[got[k : k + batch_size]].any() for k in range(0, n, batch_size))
            same = same and all(weights[wanted[k : k + batch_size]].any() for k in range(0, n, batch_size))
            assert np.array_equal(got, wanted) or not same


@pytest.mark.parametrize("target", SETS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "adamw", "lbfgs"])
def test_rows_of_weight_zero_stop_no_fit(target: str, solver: str) -> None:
    X, y = rows(target)
    kept = np.zeros(120)
    kept[[3, 60, 61, 100]] = 1.0
    several = model_for(target, solver=solver, batch_size=30, shuffle=False)  # in a batch, and in none, and in a batch
    assert all(np.isfinite(c).all() for c in fitted(several, X, y, sample_weight=kept).coefs_)
    alone = model_for(target, solver=solver, batch_size=10)  # fewer of them than batches: they are all the rows
    twin = model_for(target, solver=solver, batch_size=4)
    fitted(alone, X, y, sample_weight=kept)
    if target in VALUES and solver != "lbfgs":
        assert same_bits(alone, fitted(twin, X[kept > 0], y[kept > 0], sample_weight=np.ones(4)))
    if solver != "lbfgs":
        for X_ in (X, sparse.csr_matrix(X)):
            model = model_for(target, solver=solver, batch_size=119)
            classes = {} if target in VALUES else {"classes": np.unique(y)}
            for k in range(3):  # one row is left over for a batch of its own
                weights = np.ones(120)
                weights[k::2] = 0.0
                model.partial_fit(X_, y, sample_weight=weights, **classes)
            assert all(np.isfinite(c).all() for c in model.coefs_)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_bagging_gives_some_rows_no_weight_and_is_scikit_learns(kind: str) -> None:
    X, y = rows("multiclass" if kind == "MLPClassifier" else "regression")
    bag = getattr(ensemble, kind.replace("MLP", "Bagging"))
    settings: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 5, "random_state": 0}
    one, other = (fitted(bag(getattr(m, kind)(**settings), 2, random_state=0), X, y) for m in (backprop_gpu, theirs))
    for a, b in zip(one.estimators_, other.estimators_, strict=True):
        assert distance(a, b) < 1e-12
    tail = getattr(backprop_gpu, kind)(**settings, batch_size=119)  # scikit-learn's stops with ZeroDivisionError
    assert np.isfinite(fitted(bag(tail, 4, random_state=0), X, y).predict(X)).all()


@pytest.mark.parametrize("kernels", ["native", "reference"])
@pytest.mark.parametrize("target", SETS)
def test_partial_fit_of_any_numbers_of_rows_keeps_the_buffers_of_the_last(target: str, kernels: str) -> None:
    X, y = rows(target)
    one, other = (model_for(target, kernels=kernels, dropout=0.2) for _ in range(2))
    classes = {} if target in VALUES else {"classes": np.unique(y)}
    for n in (120, 61, 77, 50, 120, 120, 93, 64, 51, 50):
        for model in (one, other):
            model.partial_fit(X[:n], y[:n], **classes)
        other._device_state.kept = None
        assert same_bits(one, other)
        assert sorted(ws.m for ws in one._device_state.kept.step.workspaces) == sorted({min(n, 50), n % 50} - {0})
