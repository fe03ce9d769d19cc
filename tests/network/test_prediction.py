"""Predictions of few rows, which are recorded: the bits of those that are not, of the weights as they are now."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu.estimators.classifier import MLPClassifier
from backprop_gpu.network import prediction
from backprop_gpu.network.dense_net import DenseNet

RNG = np.random.default_rng(0)
X = RNG.standard_normal((700, 5))


def net_of(case: Case, **more: Any) -> DenseNet:
    given: dict[str, Any] = {"activation": ["gelu", "tanh"], "loss": "categorical_cross_entropy", "dropout": 0.1}
    given |= {"batch_norm": [True, False]} | more
    return DenseNet([5, 16, 8, 3], device=case.backend, kernels=case.kind, **given)


@pytest.mark.parametrize("case", cases())
def test_recorded_predictions_have_the_bits_of_the_others(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = (1, 2, 7, 1, 256, 257, 7, 1)
    orders: list[Any] = [lambda x: x, np.asfortranarray, lambda x: x[::-1], lambda x: x.astype(np.float32)]
    recorded, plain = net_of(case), net_of(case)
    found = [recorded.predict_proba(order(X[:m])) for m in numbers for order in orders]
    monkeypatch.setattr(prediction, "FEW_ROWS", 0)
    wanted = [plain.predict_proba(order(X[:m])) for m in numbers for order in orders]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", cases())
def test_they_follow_the_weights_and_nothing_of_the_rows_before_is_left(case: Case) -> None:
    net, other = net_of(case), net_of(case, seed=1)
    first = net.predict_proba(X[:3])
    kept = first.copy()
    net.set_parameters(other.parameters())
    np.testing.assert_array_equal(net.predict_proba(X[:3]), other.predict_proba(X[:3]))
    assert not np.array_equal(net.predict_proba(X[3:6]), kept)
    np.testing.assert_array_equal(first, kept)  # an answer is a copy, which later ones do not write


def test_what_is_kept_is_bounded_and_goes_with_the_network() -> None:
    net = DenseNet([5, 8, 1], device="cpu")
    for m in range(1, 60):
        net.predict(X[:m])
    assert sorted(net._forwards._made) == [58, 59]
    gone = weakref.ref(net)
    gc.disable()  # it goes at once, not when cycles are looked for
    try:
        del net
        assert gone() is None
    finally:
        gc.enable()


def test_an_estimator_follows_weights_that_are_changed_in_place() -> None:
    model = MLPClassifier((6,), solver="lbfgs", max_iter=5, random_state=0, device="cpu", tol=10.0)
    model.fit(X, X[:, 0] > 0)
    model.predict(X[:1])
    model.intercepts_[-1][...] += 50.0
    assert model.predict_proba(X[:1])[0, 1] > 0.999
    model.coefs_ = [np.zeros_like(c) for c in model.coefs_]
    model.intercepts_ = [np.zeros_like(b) for b in model.intercepts_]
    np.testing.assert_array_equal(model.predict_proba(X[:2]), 0.5)
