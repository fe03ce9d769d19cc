"""The functions of "Building your Deep Neural Network: Step by Step": same arguments, shapes and dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from .._typing import Array
from ..errors import ConfigError, did_you_mean
from ..maths.activations import get_activation, relu_vjp, sigmoid_vjp
from ..maths.activations import relu as _relu
from ..maths.activations import sigmoid as _sigmoid
from ..maths.dense import dense, dense_vjp_bias, dense_vjp_input, dense_vjp_weights
from ..maths.ledger import CONVENTIONS, Denominator, split_scale
from ..maths.losses import BinaryCrossEntropy
from ..maths.optimizers import SGD
from .arrays import array_namespace, check_affine, check_shape, count_layers, floating

Parameters: TypeAlias = dict[str, Array]
"""``W1, b1, ..., WL, bL``: W[l] (n_l, n_{l-1}), b[l] (n_l, 1)."""

LinearCache: TypeAlias = tuple[Array, Array, Array]
"""``(A_prev, W, b)``."""

Cache: TypeAlias = tuple[LinearCache, Array]
"""``((A_prev, W, b), Z)``."""

SCALES = ("0.01", "1/sqrt_n")


def initialize_parameters(n_x: int, n_h: int, n_y: int, *, seed: int | None = 1) -> Parameters:
    """W1, b1, W2, b2 of a network with one hidden layer: W = 0.01 N(0, 1), b = 0 (both assignments).

    See :func:`initialize_parameters_deep`; only the default seed differs.
    """
    return initialize_parameters_deep([n_x, n_h, n_y], seed=seed)


def initialize_parameters_deep(layer_dims: Sequence[int], *, seed: int | None = 3, scale: str = "0.01") -> Parameters:
    """NumPy float64 parameters ``W1, b1, ..., WL, bL``, drawn as the assignment draws them.

    The numbers are those after ``np.random.seed(seed)``; NumPy's global random state is left alone.

    Parameters
    ----------
    layer_dims : sequence of int
        ``[n_0, n_1, ..., n_L]``, each at least 1.
    seed : int or None
        3 in the step-by-step assignment (the default), 1 in the application; None draws anew each time.
    scale : str
        ``"0.01"``: W = 0.01 N(0, 1), the step-by-step assignment. ``"1/sqrt_n"``: W = N(0, 1) / sqrt(n_{l-1}), the
        application (``dnn_app_utils_v2``).

    Raises
    ------
    ConfigError
        For sizes, a seed or a scale that cannot be used.
    """
    sizes = list(layer_dims)
    if len(sizes) < 2 or not all(isinstance(n, int | np.integer) and n >= 1 for n in sizes):
        raise ConfigError(f"layer_dims must be at least two whole numbers, such as [5, 4, 1], got {sizes}")
    if scale not in SCALES:
        raise ConfigError(f"unknown scale {scale!r}{did_you_mean(str(scale), SCALES)}; known: {', '.join(SCALES)}")
    try:
        draws = np.random.RandomState(seed)
    except (TypeError, ValueError):
        raise ConfigError(f"seed must be a whole number from 0 to 2**32 - 1, or None, got {seed!r}") from None
    parameters: Parameters = {}
    for l, (k, n) in enumerate(pairwise(sizes), start=1):
        W = draws.randn(n, k)
        parameters[f"W{l}"] = W * 0.01 if scale == "0.01" else W / np.sqrt(k)
        parameters[f"b{l}"] = np.zeros((n, 1))
    return parameters


def sigmoid(Z: Array) -> tuple[Array, Array]:
    """A = 1 / (1 + e^-Z) and the cache Z, both of Z's shape (``dnn_utils``)."""
    return _sigmoid(array_namespace(Z=Z), Z), Z


def sigmoid_backward(dA: Array, cache: Array) -> Array:
    """dZ = dA * A (1 - A), of Z's shape; ``cache`` is Z, which :func:`sigmoid` returns (``dnn_utils``)."""
    xp = array_namespace(dA=dA, Z=cache)
    check_shape("dA", dA, cache.shape, "the shape of Z")
    return sigmoid_vjp(xp, dA, cache, _sigmoid(xp, cache))


def relu(Z: Array) -> tuple[Array, Array]:
    """A = max(Z, 0) and the cache Z, both of Z's shape (``dnn_utils``)."""
    return _relu(array_namespace(Z=Z), Z), Z


def relu_backward(dA: Array, cache: Array) -> Array:
    """dZ = dA where Z > 0, else 0, of Z's shape; ``cache`` is Z, which :func:`relu` returns (``dnn_utils``)."""
    xp = array_namespace(dA=dA, Z=cache)
    check_shape("dA", dA, cache.shape, "the shape of Z")
    return relu_vjp(xp, dA, cache, _relu(xp, cache))


def linear_forward(A: Array, W: Array, b: Array) -> tuple[Array, LinearCache]:
    """Z = W A + b.  A (n_prev, m), W (n, n_prev), b (n, 1) -> Z (n, m) and the cache (A, W, b)."""
    xp = array_namespace(A=A, W=W, b=b)
    check_affine("A", A, "W", W, "b", b)
    return dense(xp, W, A, b), (A, W, b)


def linear_activation_forward(A_prev: Array, W: Array, b: Array, activation: str) -> tuple[Array, Cache]:
    """A = g(W A_prev + b), (n, m), and the cache ((A_prev, W, b), Z).

    ``activation`` is ``"sigmoid"`` or ``"relu"`` as in the course, ``"tanh"``, or any other name in
    ``maths.activations``.
    """
    g = get_activation(activation)
    Z, linear_cache = linear_forward(A_prev, W, b)
    return g.forward(array_namespace(Z=Z), Z), (linear_cache, Z)


def L_model_forward(X: Array, parameters: Mapping[str, Array]) -> tuple[Array, list[Cache]]:
    """[linear -> relu] * (L - 1) -> linear -> sigmoid.  X (n_0, m) -> AL (n_L, m) and the caches of layers 1..L.

    Raises
    ------
    ConfigError
        If ``parameters`` lacks a W or a b.
    ShapeError
        If X or a parameter has the wrong shape; the message names it.
    DeviceError
        If X and the parameters are in different libraries or on different devices.
    """
    L = count_layers(parameters)
    array_namespace(X=X, **parameters)
    A, caches = X, []
    for l in range(1, L + 1):
        W, b = parameters[f"W{l}"], parameters[f"b{l}"]
        check_affine("X" if l == 1 else f"A{l - 1}", A, f"W{l}", W, f"b{l}", b)
        A, cache = linear_activation_forward(A, W, b, "sigmoid" if l == L else "relu")
        caches.append(cache)
    return A, caches


def compute_cost(AL: Array, Y: Array) -> Array:
    """J = -(1/m) sum [Y log AL + (1 - Y) log(1 - AL)], of shape ().  AL, Y (n_L, m).

    Where the course's formula meets log 0 it gives inf or nan. Here log 0 is log(smallest normal number): an AL of
    exactly 0 or 1 costs 0 on the right side and 708.4 / m on the wrong one (87.3 / m in float32).
    """
    xp, AL, Y = floating(AL, Y)
    smallest = float(xp.finfo(AL.dtype).smallest_normal)
    log_AL, log_rest = (xp.log(xp.maximum(A, smallest)) for A in (AL, 1.0 - AL))
    total = xp.sum(Y * log_AL + (1.0 - Y) * log_rest)
    return -(total * Denominator.of("mean", AL.shape[1]).inverse)


def linear_backward(dZ: Array, cache: LinearCache, *, convention: str = "late") -> tuple[Array, Array, Array]:
    """dA_prev = W^T dZ, dW = s dZ A_prev^T, db = s sum dZ, with s = 1/m (late) or 1 (early, dZ has the 1/m already).

    dZ (n, m), cache (A_prev, W, b) -> dA_prev (n_prev, m), dW (n, n_prev), db (n, 1).
    """
    try:
        A_prev, W, b = cache
    except (TypeError, ValueError):
        raise ConfigError(
            "linear_backward takes the linear cache (A_prev, W, b): pass the first half of the layer's cache, cache[0]"
        ) from None
    xp = array_namespace(dZ=dZ, A_prev=A_prev, W=W, b=b)
    check_affine("A_prev", A_prev, "W", W, "b", b)
    check_shape("dZ", dZ, (W.shape[0], A_prev.shape[1]), "one row per unit of W, one column per example")
    dW, db = dense_vjp_weights(xp, dZ, A_prev), dense_vjp_bias(xp, dZ)
    _, late = _factors(convention, A_prev.shape[1])
    if late is not None:
        dW, db = late * dW, late * db
    return dense_vjp_input(xp, W, dZ), dW, db


def linear_activation_backward(
    dA: Array, cache: Cache, activation: str, *, convention: str = "late"
) -> tuple[Array, Array, Array]:
    """dZ = dA * g'(Z), then :func:`linear_backward`: dA (n, m) -> dA_prev, dW, db."""
    g = get_activation(activation)
    try:
        linear_cache, Z = cache
    except (TypeError, ValueError):
        raise ConfigError(
            "linear_activation_backward takes a layer's whole cache ((A_prev, W, b), Z), as linear_activation_forward "
            "returns it"
        ) from None
    xp = array_namespace(dA=dA, Z=Z)
    check_shape("dA", dA, Z.shape, "the shape of Z")
    return linear_backward(g.vjp(xp, dA, Z, g.forward(xp, Z)), linear_cache, convention=convention)


def L_model_backward(AL: Array, Y: Array, caches: Sequence[Cache], *, convention: str = "late") -> dict[str, Array]:
    """Gradients ``dA0, dW1, db1, ..., dA[L-1], dWL, dbL`` from dAL = -(Y/AL - (1 - Y)/(1 - AL)).

    AL, Y (n_L, m); ``caches`` from :func:`L_model_forward`. As in later versions of the assignment,
    ``dA[l]`` belongs to A[l]; the first ones kept it under ``dA[l+1]``. An AL of exactly 0 or 1 gives finite gradients
    (``BinaryCrossEntropy.literal_dAL`` says which).

    Parameters
    ----------
    convention : str
        ``"late"``: dAL = dL/dAL, 1/m in dW and db. ``"early"``: dAL = dJ/dAL, 1/m in dAL.
    """
    xp, AL, Y = floating(AL, Y)
    L = len(caches)
    if not L:
        raise ConfigError("caches is empty: pass the list that L_model_forward returns as its second result")
    early, _ = _factors(convention, AL.shape[1])
    dA = BinaryCrossEntropy().literal_dAL(xp, AL, Y)
    if early is not None:
        dA = early * dA
    grads: dict[str, Array] = {}
    for l in range(L, 0, -1):
        g = "sigmoid" if l == L else "relu"
        dA, dW, db = linear_activation_backward(dA, caches[l - 1], g, convention=convention)
        grads |= {f"dA{l - 1}": dA, f"dW{l}": dW, f"db{l}": db}
    return grads


def update_parameters(parameters: Mapping[str, Array], grads: Mapping[str, Array], learning_rate: float) -> Parameters:
    """W[l] - learning_rate dW[l] and b[l] - learning_rate db[l], as a new dictionary; the arguments are not written."""
    rule = SGD(learning_rate=float(learning_rate))
    names = [f"{kind}{l}" for l in range(1, count_layers(parameters) + 1) for kind in "Wb"]
    if missing := [f"d{name}" for name in names if f"d{name}" not in grads]:
        raise ConfigError(f"grads has no {', '.join(missing)}: pass what L_model_backward returns")
    updated = {}
    for name in names:
        theta, grad = parameters[name], grads[f"d{name}"]
        xp = array_namespace(**{name: theta, f"d{name}": grad})
        check_shape(f"d{name}", grad, theta.shape, f"the shape of {name}")
        updated[name], _ = rule.apply(xp, theta, grad, (), rule.scalars(1, rule.learning_rate), decay=False)
    return updated


def _factors(convention: str, m: int) -> tuple[float | None, float | None]:
    """The factor of dAL and the factor of dW and db: 1/m and None (one), or None and 1/m."""
    if convention not in CONVENTIONS:
        hint = did_you_mean(str(convention), CONVENTIONS)
        raise ConfigError(f"convention must be 'late' (the course) or 'early', got {convention!r}{hint}")
    return split_scale(convention, Denominator.of("mean", m).inverse)
