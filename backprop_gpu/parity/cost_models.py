"""Costs and gradients as functions of named parameters: of two callables, of an estimator, of a network."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..errors import ConfigError
from ..gradcheck import ComplexStepNamespace
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from ..network.targets import check_rows, check_targets

Parameters = dict[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """A cost, or a term of one, at ``theta``; ``size``: of the numbers whose rounding is in it."""

    name: str
    theta: Parameters
    cost: Callable[[Parameters], Any]
    gradient: Callable[[Parameters], Parameters]
    size: float


def parts_of(target: Any, X: Any, y: Any, theta: Any, settings: dict[str, Any]) -> tuple[list[Part], dict[str, float]]:
    """The parts of a target that are checked apart, and numbers by which a gradient may be off, by name."""
    if isinstance(target, DenseNet):
        parts = [_network(target, X, y, settings)]
        return parts, {"n_outputs": target.sizes[-1], "n_samples": len(X)}
    if settings:
        raise ConfigError(f"{', '.join(sorted(settings))}: only a network takes settings; leave them out")
    if isinstance(target, tuple | list) and len(target) == 2 and all(callable(f) for f in target):
        cost, gradient = target
        return [_pair(cost, gradient, theta)], _sizes(X, y)
    if hasattr(target, "loss_and_gradient") or hasattr(target, "_backprop"):
        return _estimator(target, X, y)
    raise ConfigError(
        f"a {type(target).__name__} is no target; pass (cost, gradient), a DenseNet, or an estimator with _backprop"
    )


def _sizes(X: Any, y: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    if y is not None:
        shape = np.shape(y)
        found["n_outputs"] = shape[1] if len(shape) == 2 else 1
    if X is not None:
        found["n_samples"] = len(X)
    return found


def _pair(cost: Callable[[Any], Any], gradient: Callable[[Any], Any], theta: Any) -> Part:
    """Two callables of an array, or of a dict of arrays."""
    if theta is None:
        raise ConfigError("two callables need theta=, the parameters at which they are compared")
    if isinstance(theta, dict):
        named = {str(name): _parameters(f"theta[{name!r}]", value) for name, value in theta.items()}
        return Part("cost", named, cost, gradient, _size(cost(named)))
    named = {"theta": _parameters("theta", theta)}
    return Part(
        "cost",
        named,
        lambda p: cost(p["theta"]),
        lambda p: {"theta": gradient(p["theta"])},
        _size(cost(named["theta"])),
    )


def _parameters(name: str, value: Any) -> np.ndarray:
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is no array of numbers; pass one, or a dict of such arrays") from None


def number(cost: Any) -> Any:
    """The one number that a cost is, real or complex, in whatever shape it comes."""
    x = np.asarray(cost)
    if x.size != 1 or x.dtype.kind not in "biufc":
        got = f"of shape {x.shape}" if x.dtype.kind in "biufc" else f"of type {type(cost).__name__}"
        raise ConfigError(f"the cost must be one number, got one {got}; return its mean or its sum")
    return x.reshape(())[()]


def _size(cost: Any) -> float:
    """|cost| at theta, which has to be finite: there is no derivative otherwise."""
    x = number(cost)
    if np.iscomplexobj(x) or not np.isfinite(x):
        raise ConfigError(f"the cost at theta is {x}; choose a theta where it is a finite number")
    return abs(float(x))


# -- estimators -------------------------------------------------------------------------------------------------------


def _estimator(target: Any, X: Any, y: Any) -> tuple[list[Part], dict[str, float]]:
    """A multilayer perceptron like scikit-learn's: its loss with no penalty, and what the penalty adds."""
    if X is None or y is None:
        raise ConfigError("an estimator needs X and y, the examples on which its cost is compared")
    model = copy.deepcopy(target)
    if not hasattr(model, "coefs_"):
        model.set_params(max_iter=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one iteration does not converge
            model.fit(X, y)
    X = np.asarray(X, np.float64)
    Y = model._label_binarizer.transform(y) if hasattr(model, "_label_binarizer") else np.asarray(y)
    Y = np.asarray(Y, np.float64).reshape(len(X), -1)
    layers, alpha = len(model.coefs_), float(getattr(model, "alpha", 0.0))
    theta: Parameters = {}
    for i, (W, b) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        theta |= {f"coefs_[{i}]": np.array(W, np.float64), f"intercepts_[{i}]": np.array(b, np.float64)}

    def run(p: Parameters, strength: float) -> tuple[Any, Parameters]:
        model.coefs_ = [p[f"coefs_[{i}]"] for i in range(layers)]
        model.intercepts_ = [p[f"intercepts_[{i}]"] for i in range(layers)]
        model.alpha = strength
        if not hasattr(model, "loss_and_gradient"):
            return _backprop(model, X, Y)
        loss, (coefs, intercepts) = model.loss_and_gradient(X, y)  # of this package
        grads = {f"coefs_[{i}]": g for i, g in enumerate(coefs)}
        return loss, grads | {f"intercepts_[{i}]": g for i, g in enumerate(intercepts)}

    def added(p: Parameters) -> Parameters:
        with_it, without = run(p, alpha)[1], run(p, 0.0)[1]
        return {name: with_it[name] - without[name] for name in p}

    size = abs(float(run(theta, alpha)[0]))
    parts = [Part("loss", theta, lambda p: run(p, 0.0)[0], lambda p: run(p, 0.0)[1], size)]
    if alpha > 0.0:
        parts.append(Part("penalty", theta, lambda p: run(p, alpha)[0] - run(p, 0.0)[0], added, size))
    return parts, {"n_outputs": Y.shape[1], "n_samples": len(X)}


def _backprop(model: Any, X: np.ndarray, Y: np.ndarray) -> tuple[Any, Parameters]:
    """The loss that an estimator reports, and the gradient by which it trains."""
    layers = len(model.coefs_)
    coef_grads: list[Any] = [None] * layers
    intercept_grads: list[Any] = [None] * layers
    given = {
        "X": X,
        "y": Y,
        "sample_weight": None,  # not before scikit-learn 1.7
        "activations": [X] + [None] * layers,
        "deltas": [None] * layers,
        "coef_grads": coef_grads,
        "intercept_grads": intercept_grads,
    }
    wanted = inspect.signature(model._backprop).parameters
    if set(wanted) - set(given):
        unknown = ", ".join(sorted(set(wanted) - set(given)))
        raise ConfigError(f"_backprop of {type(model).__name__} asks for {unknown}; pass (cost, gradient) instead")
    loss, coef_grads, intercept_grads = model._backprop(**{name: given[name] for name in wanted})
    gradient: Parameters = {}
    for i in range(layers):
        gradient |= {f"coefs_[{i}]": coef_grads[i], f"intercepts_[{i}]": intercept_grads[i]}
    return loss, gradient


# -- networks ---------------------------------------------------------------------------------------------------------


def _network(net: DenseNet, X: Any, y: Any, settings: dict[str, Any]) -> Part:
    """J with its penalty, on the network's own device in float64; in complex128 through the reference kernels."""
    X = check_rows(X, net.sizes[0])
    Y = check_targets(y, net.loss, net.sizes[-1], X.shape[0])
    spec = net.settings() | {"initializer": "zeros"}
    real = DenseNet(**spec | {"dtype": "float64"}, device=net.backend, kernels=net.kernels_kind)
    complex_ = DenseNet(
        **spec | {"dtype": "complex128"}, device=Backend("numpy", ComplexStepNamespace()), kernels="reference"
    )
    steps = {model.dtype: TrainingStep(model, "sgd", **settings) for model in (real, complex_)}
    theta = {name: value.astype(np.float64) for name, value in net.parameters().items()}
    # Running statistics are no parameters: no gradient belongs to them, and the cost of a batch does not read them.
    statistics = {name: theta.pop(name) for name in theta.keys() - {name for name, *_ in real.params.spans}}

    def run(p: Parameters) -> TrainingStep:
        dtype = "complex128" if any(np.iscomplexobj(x) for x in p.values()) else "float64"
        step, model = steps[dtype], steps[dtype].net
        model.set_parameters(statistics | p)
        step.gradient(model.upload_columns(X), model.upload_columns(Y))
        step.penalty()
        return step

    def cost(p: Parameters) -> Any:
        step = run(p)
        return step.net.backend.to_host(step.value)[0]

    def gradient(p: Parameters) -> Parameters:
        params = run(p).net.params
        return params.named(real.backend.to_host(params.grad))

    return Part("cost", theta, cost, gradient, abs(float(cost(theta))))
