"""``parity.check`` of an estimator with class weights: they must be what the same weights of the rows are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.utils import compute_sample_weight

from backprop_gpu import MLPClassifier, parity
from backprop_gpu.parity.class_weights import row_weights

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
Y = np.array(["b", "a", "c"])[np.digitize(X[:, 0] + RNG.standard_normal(60), [-1.0, 0.5])]
W = RNG.uniform(0.5, 2.0, 60)
GIVEN: list[Any] = ["balanced", {"a": 3.0}, {"a": 0.25, "b": 2.0, "c": 5.0}]


def fitted(class_weight: Any, kind: type[MLPClassifier] = MLPClassifier, **settings: Any) -> MLPClassifier:
    with pytest.warns(match="Maximum iterations"):
        return kind((5,), max_iter=2, random_state=0, class_weight=class_weight, **settings).fit(X, Y)


@pytest.mark.parametrize("class_weight", GIVEN, ids=str)
@pytest.mark.parametrize("weights", [None, W], ids=["", "weighted"])
def test_right_weights_are_found_right(class_weight: Any, weights: Any) -> None:
    report = parity.check(fitted(class_weight, batch_size=16), X, Y, sample_weight=weights)
    assert report.ok, report.summary()
    names = {f.tensor for f in report.findings}
    assert "weights of fit" in names
    assert ("weights of partial_fit" in names) == (class_weight != "balanced")
    assert report.trace is not None
    wanted = compute_sample_weight(class_weight, Y) * (1.0 if weights is None else weights)
    np.testing.assert_allclose(np.sort(report.trace.weights.ravel()), np.sort(wanted), rtol=1e-6)


def test_the_weights_are_those_of_scikit_learn() -> None:
    for class_weight in GIVEN:
        np.testing.assert_allclose(row_weights(class_weight, Y), compute_sample_weight(class_weight, Y))
    several = np.column_stack([Y, Y[::-1]])
    for given in (["balanced"] * 2, [{"a": 3.0}, {"b": 2.0}]):
        wanted = np.prod([compute_sample_weight(g, c) for g, c in zip(given, several.T, strict=True)], axis=0)
        np.testing.assert_allclose(row_weights(given, several), wanted)


class Twice(MLPClassifier):
    def fit(self, X: Any, y: Any, sample_weight: Any = None, **more: Any) -> MLPClassifier:
        if self.class_weight is not None:
            once = row_weights(self.class_weight, y)
            sample_weight = once if sample_weight is None else once * sample_weight
        return super().fit(X, y, sample_weight, **more)


class Never(MLPClassifier):
    def fit(self, X: Any, y: Any, sample_weight: Any = None, **more: Any) -> MLPClassifier:
        given, self.class_weight = self.class_weight, None
        super().fit(X, y, sample_weight, **more)
        self.class_weight = given
        return self


class Alone(MLPClassifier):
    def fit(self, X: Any, y: Any, sample_weight: Any = None, **more: Any) -> MLPClassifier:
        return super().fit(X, y, sample_weight if self.class_weight is None else None, **more)


FAULTS: list[tuple[type[MLPClassifier], Any, str]] = [
    (Twice, None, "class weights are applied twice"),
    (Twice, W, "class weights are applied twice"),
    (Never, None, "class weights are not applied"),
    (Alone, W, "class weights replace sample_weight"),
]


@pytest.mark.parametrize(("kind", "weights", "said"), FAULTS, ids=["twice", "twice, weighted", "never", "alone"])
@pytest.mark.parametrize("class_weight", GIVEN, ids=str)
def test_weights_that_are_applied_wrongly_are_named(
    kind: type[MLPClassifier], weights: Any, said: str, class_weight: Any
) -> None:
    report = parity.check(fitted(class_weight, kind), X, Y, sample_weight=weights)
    assert report.first is not None
    assert (report.first.tensor, report.first.cause) == ("weights of fit", said)
