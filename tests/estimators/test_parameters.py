"""Parameters: scikit-learn's defaults, every name of maths/, and one error naming each value that is out of range."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.utils._param_validation import InvalidParameterError, generate_invalid_param_val, make_constraint
from support.estimators import fitted, rows

import backprop_gpu
from backprop_gpu import MLPClassifier, MLPRegressor
from backprop_gpu.estimators.params import activations_of
from backprop_gpu.maths.activations import ACTIVATIONS
from backprop_gpu.maths.initializers import INITIALIZERS
from backprop_gpu.maths.losses import LOSSES
from backprop_gpu.maths.optimizers import OPTIMIZERS, AdamW
from backprop_gpu.maths.schedules import SCHEDULES

BOTH = (MLPClassifier, MLPRegressor)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_scikit_learns_parameters_come_first_with_their_defaults(kind: str) -> None:
    expected = list(inspect.signature(getattr(theirs, kind)).parameters.values())
    own = list(inspect.signature(getattr(backprop_gpu, kind)).parameters.values())
    assert [(p.name, p.default, p.kind) for p in own[: len(expected)]] == [
        (p.name, p.default, p.kind) for p in expected
    ]
    assert {p.kind for p in own[len(expected) :]} == {inspect.Parameter.KEYWORD_ONLY}
    assert getattr(backprop_gpu, kind)().loss == getattr(theirs, kind)().loss


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_every_public_attribute_of_scikit_learns_is_there(kind: str) -> None:
    X, y = rows("binary" if kind == "MLPClassifier" else "regression")
    reference, ours = (fitted(getattr(m, kind)(max_iter=2), X, y) for m in (theirs, backprop_gpu))
    assert {n for n in (*vars(reference), *dir(reference)) if not n.startswith("_")} <= {*vars(ours), *dir(ours)}


def wrong_values() -> Iterator[Any]:
    """A value outside each parameter's constraints, made from them, and one of a type that nothing takes."""
    for kind in BOTH:
        for name, constraints in kind._parameter_constraints.items():
            yield pytest.param(kind, name, type("Nothing", (), {})(), id=f"{kind.__name__}-{name}-object")
            for i, constraint in enumerate(map(make_constraint, constraints)):
                try:
                    value = generate_invalid_param_val(constraint)
                except NotImplementedError:
                    continue
                yield pytest.param(kind, name, value, id=f"{kind.__name__}-{name}-{i}")


@pytest.mark.parametrize(("kind", "name", "value"), list(wrong_values()))
def test_every_value_out_of_range_is_refused_by_name(kind: Any, name: str, value: Any) -> None:
    X, y = rows("regression")
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of {kind.__name__} must be") as caught:
        kind(**{name: value}).fit(X, y > 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "telling"),
    [
        ("activation", ["relu"], "2 hidden layers need 2 values, got 1"),
        ("activation", ["relu", "nothing"], "unknown activation 'nothing'"),
        ("activation", {"name": "leaky_relu", "slope": "x"}, "slope must be a finite number"),
        ("dropout", [0.5, 1.0], "below 1"),
        ("dropout", [0.5], "2 hidden layers need 2 values"),
        ("solver", {"name": "adamw", "decay": 1.0}, "no parameter 'decay'"),
        ("solver", {"name": "adam", "beta1": 2.0}, "beta1 must be at least 0 and below 1"),
        ("learning_rate", {"name": "cosine", "floor": 2.0}, "floor must be from 0 to 1"),
        ("validation_metrics", ["rmse"], "does not go with the task"),
    ],
)
def test_what_the_constraints_cannot_see_is_refused_by_name_too(name: str, value: Any, telling: str) -> None:
    X, y = rows("binary")
    model = MLPClassifier((4, 3), early_stopping=True, **{name: value})
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of MLPClassifier .*{telling}") as caught:
        model.fit(X, y)
    assert "\n" not in str(caught.value)


def test_other_wrong_values() -> None:
    X, y = rows("regression")
    with pytest.raises(ValueError, match="hidden_layer_sizes must be > 0, got"):
        MLPRegressor(hidden_layer_sizes=(3, 0)).fit(X, y)
    with pytest.raises(ValueError, match="hidden_layer_sizes must be whole numbers"):
        MLPRegressor(hidden_layer_sizes=(3.5,)).fit(X, y)
    with pytest.raises(InvalidParameterError, match=r"The 'device' parameter of MLPRegressor .*no device 'tpu'"):
        MLPRegressor(device="tpu").fit(X, y)
    with pytest.raises(InvalidParameterError, match=r"The 'epsilon' parameter of MLPRegressor .* is 0 in float32"):
        MLPRegressor(epsilon=1e-60, dtype="float32").fit(X, y)
    with pytest.raises(InvalidParameterError, match="must be a loss on values"):
        MLPRegressor(loss={"name": "binary_cross_entropy"}).fit(X, y)
    with pytest.raises(InvalidParameterError, match="The 'loss' parameter of MLPRegressor"):
        MLPRegressor(loss={"name": "huber", "threshold": -1.0}).fit(X, y)


def test_logistic_is_the_sigmoid_and_every_other_name_is_that_of_maths() -> None:
    assert activations_of("logistic", 2) == (ACTIVATIONS["sigmoid"],) * 2
    for name, activation in ACTIVATIONS.items():
        if not activation.output_only:
            assert activations_of([name], 1) == (activation,)


@pytest.mark.parametrize("name", sorted(n for n, a in ACTIVATIONS.items() if not a.output_only))
def test_every_activation_trains(name: str) -> None:
    X, y = rows("regression")
    model = fitted(MLPRegressor(activation=name, max_iter=30, learning_rate_init=0.01, random_state=0), X, y)
    assert model.loss_curve_[-1] < 0.7 * model.loss_curve_[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains(name: str) -> None:
    X, y = rows("regression")
    rate = 0.003 if name == "lion" else 0.02
    model = fitted(MLPRegressor(solver=name, max_iter=40, learning_rate_init=rate, random_state=0), X, y)
    assert model.loss_curve_[-1] < 0.7 * model.loss_curve_[0]


@pytest.mark.parametrize("name", sorted(n for n, c in LOSSES.items() if c.labels == "values"))
def test_every_loss_on_values_trains(name: str) -> None:
    X, y = rows("counts")
    model = fitted(MLPRegressor(name, max_iter=40, learning_rate_init=0.01, random_state=0), X, y)
    assert model.loss_curve_[-1] < 0.8 * model.loss_curve_[0]
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("name", ["auto", *INITIALIZERS])
def test_every_initializer_starts_and_its_seed_is_the_random_state(name: str) -> None:
    X, y = rows("binary")
    a, b, c = (fitted(MLPClassifier(initializer=name, max_iter=1, random_state=s), X, y) for s in (0, 0, 1))
    assert all(np.array_equal(p, q) for p, q in zip(a.coefs_, b.coefs_, strict=True))
    assert name == "zeros" or not all(np.array_equal(p, q) for p, q in zip(a.coefs_, c.coefs_, strict=True))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_moves_the_rate_as_it_says(name: str) -> None:
    X, y = rows("binary")
    seen: list[float] = []

    class Rates(backprop_gpu.Callback):
        def on_epoch(self, epoch: backprop_gpu.Epoch) -> None:
            seen.append(epoch.learning_rate)

    fitted(MLPClassifier(learning_rate=name, max_iter=4, batch_size=40, callbacks=[Rates()]), X, y)
    schedule = SCHEDULES[name]()
    assert seen == pytest.approx([0.001 * schedule.factor(3 * k, 12) for k in (1, 2, 3, 4)])


def test_an_optimizer_may_be_a_mapping_or_an_object() -> None:
    X, y = rows("binary")
    given = [{"name": "adamw", "weight_decay": 0.1}, AdamW(learning_rate=0.001, weight_decay=0.1)]
    a, b = (fitted(MLPClassifier(solver=s, max_iter=3, random_state=0), X, y) for s in given)
    assert all(np.array_equal(p, q) for p, q in zip(a.coefs_, b.coefs_, strict=True))
