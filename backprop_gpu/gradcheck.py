"""Is the gradient the derivative of the cost? Checked by the complex step, through the network's own layer loop.

For an analytic J, Im J(theta + i h d) / h = grad J . d + O(h^2) with h = 1e-170: no subtraction, so no step size to
choose (Squire & Trapp 1998). The network runs in complex128 on a namespace whose comparisons, ``abs``, ``maximum`` and
``minimum`` look at the real part, which makes the step right even at a kink.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .backends.base import Backend
from .errors import ConfigError
from .network.dense_net import DenseNet
from .network.step import TrainingStep
from .network.targets import check_rows, check_targets, check_weights

STEP = 1e-170  # its square is 0, so that it leaves no trace in a real part, where it would break exact ties
MOST_TERMS = 64  # rows up to which the terms of the gradient are looked at one by one
THRESHOLD = 1e-12  # relative to sum |terms of g| |d|


class ComplexStepNamespace:
    """NumPy with the functions that a derivative along the imaginary axis needs to see by their real part.

    At a tie each takes the side that the formulas take: ``maximum`` its second argument (ReLU is 0 at 0), ``minimum``
    its first, ``abs`` the derivative 0 (the sign of 0).
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def abs(x: np.ndarray) -> np.ndarray:
        """|x| as sign(Re x) x."""
        return np.sign(np.real(x)) * x

    @staticmethod
    def sign(x: np.ndarray) -> np.ndarray:
        """The sign of the real part."""
        return np.sign(np.real(x)).astype(x.dtype)

    @staticmethod
    def maximum(x: Any, y: Any) -> np.ndarray:
        """Whichever has the larger real part."""
        return np.where(np.real(x) > np.real(y), x, y)

    @staticmethod
    def minimum(x: Any, y: Any) -> np.ndarray:
        """Whichever has the smaller real part."""
        return np.where(np.real(x) > np.real(y), y, x)

    @staticmethod
    def max(x: np.ndarray, axis: int | None = None, keepdims: bool = False) -> np.ndarray:
        """The largest real part; only ever used as a shift, whose derivative cancels."""
        return np.max(np.real(x), axis=axis, keepdims=keepdims)

    @staticmethod
    def greater(x: Any, y: Any) -> np.ndarray:
        """Re x > Re y."""
        return np.real(x) > np.real(y)

    @staticmethod
    def erf(x: np.ndarray) -> np.ndarray:
        """erf(a + ib) to first order in b: erf(a) + i b 2/sqrt(pi) e^(-a^2)."""
        from .maths.special import erf

        a = np.real(x)
        return erf(np, a) + 1j * np.imag(x) * (2.0 / np.sqrt(np.pi)) * np.exp(-a * a)


@dataclass(frozen=True)
class TensorCheck:
    """One parameter tensor along one random direction.

    Attributes
    ----------
    name : str
        ``"W1"``, ``"b2"``, ...
    error : float
        |analytic - complex step| relative to the size of the terms.
    worst : tuple or None
        After a failure: (row, column) of the entry that is furthest off, with ``got`` and ``want`` there.
    """

    name: str
    error: float
    ok: bool
    worst: tuple[int, int] | None = None
    got: float = 0.0
    want: float = 0.0


@dataclass(frozen=True)
class GradientReport:
    """The outcome of :func:`gradcheck`: ``ok``, the largest ``error`` and a ``TensorCheck`` per tensor."""

    tensors: tuple[TensorCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether every tensor is within the threshold."""
        return all(t.ok for t in self.tensors)

    @property
    def error(self) -> float:
        """The largest relative error."""
        return float(np.max([t.error for t in self.tensors]))  # NaN is the largest


def gradcheck(
    net: DenseNet,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    threshold: float = THRESHOLD,
    seed: int = 0,
    **settings: Any,
) -> GradientReport:
    """Compare the network's gradient, on its own device in float64, with the complex step.

    Parameters
    ----------
    net : DenseNet
        Its parameters are read, not changed; dropout is checked with the masks of step 0.
    X, y, sample_weight : as for :meth:`DenseNet.cost`
        A few rows are enough.
    threshold : float, default 1e-12
        Largest accepted |difference| along a direction d, relative to the terms that the gradient is a sum of.
    seed : int, default 0
        Of the random directions, one per tensor. A failing tensor is swept entry by entry.
    **settings
        Of :class:`~backprop_gpu.network.step.TrainingStep`: ``l2``, ``one_over_m``, ``delta``, ``reduction``, ...

    Returns
    -------
    GradientReport

    Raises
    ------
    ShapeError, DataError, ConfigError
        For input that the network would not take.
    """
    X, weights = check_rows(X, net.sizes[0]), None
    Y = check_targets(y, net.loss, net.sizes[-1], X.shape[0])
    if sample_weight is not None:
        weights = check_weights(sample_weight, X.shape[0])
    unknown = set(settings) - {"l1", "l2", "penalty_over", "delta", "one_over_m", "reduction"}
    if unknown:
        raise ConfigError(f"gradcheck does not take {', '.join(sorted(unknown))}")
    gradient, size = _gradient(net, X, Y, weights, settings)
    cost = _ComplexCost(net, X, Y, weights, settings)
    rng = np.random.default_rng(seed)
    return GradientReport(
        tuple(_check_tensor(name, gradient[name], size[name], cost, threshold, rng) for name in gradient)
    )


def _twin(net: DenseNet, dtype: str, device: Any, kernels: str) -> DenseNet:
    """The same network and parameters in another dtype, on another device."""
    # The objects themselves, not their names: someone's own activation or loss is what is to be checked.
    given = {"activation": net.activations[1:-1], "loss": net.loss, "dtype": dtype, "initializer": "zeros"}
    spec = net.spec() | given
    twin = DenseNet(**spec, device=device, kernels=kernels)
    twin.set_parameters(net.parameters())
    return twin


def _gradient(
    net: DenseNet, X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None, settings: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """dJ/dtheta, penalty included, by the network's own kernels in float64; and the size of the terms it is a sum of.

    The terms are the examples' own gradients (each with the others at weight 0): where they cancel, what is left is
    rounding, and is judged by their size. Many rows do not cancel to the last digit, and are judged by their sum; so
    are the rows of a batch that is normalized, which have no gradients of their own.
    """
    twin = _twin(net, "float64", net.backend, net.kernels_kind)
    step = TrainingStep(twin, "sgd", **settings)
    columns = twin.upload_columns(X), twin.upload_columns(Y)

    def gradient(w: np.ndarray | None, total: float | None) -> np.ndarray:
        step.gradient(*columns, None if w is None else twin.upload_columns(w), weights_sum=total)
        return twin.backend.to_host(twin.params.grad)

    m = X.shape[0]
    given, total = np.ones((m, 1)) if weights is None else weights, None if weights is None else float(weights.sum())
    plain = gradient(weights, total)
    step.penalty()
    whole = twin.backend.to_host(twin.params.grad)
    size = np.abs(whole) + np.abs(whole - plain)
    if m <= MOST_TERMS and not any(net.batch_norm):
        alone = (np.where(np.arange(m)[:, None] == i, given, 0.0) for i in range(m))
        size = sum((np.abs(gradient(w, total or float(m))) for w in alone), start=np.abs(whole - plain))
    return twin.params.named(whole), twin.params.named(size)


class _ComplexCost:
    """J(theta + i h d) through the same layer loop and reference kernels, in complex128."""

    def __init__(
        self, net: DenseNet, X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None, settings: dict[str, Any]
    ) -> None:
        self.twin = _twin(net, "complex128", Backend("numpy", ComplexStepNamespace()), "reference")
        self.theta = {name: value.copy() for name, value in self.twin.parameters().items()}
        self.step = TrainingStep(self.twin, "sgd", **settings)
        self.X, self.Y = self.twin.upload_columns(X), self.twin.upload_columns(Y)
        self.weights = None if weights is None else self.twin.upload_columns(weights)
        self.weights_sum = None if weights is None else float(weights.sum())

    def derivative(self, name: str, direction: np.ndarray) -> float:
        """d/dh J(theta + h d) at 0, ``direction`` in the shape of the tensor ``name``."""
        moved = self.theta | {name: self.theta[name] + 1j * STEP * direction}
        self.twin.set_parameters(moved)
        self.step.gradient(self.X, self.Y, self.weights, weights_sum=self.weights_sum)
        self.step.penalty()
        return float(np.imag(self.step.value[0])) / STEP


def _check_tensor(
    name: str, g: np.ndarray, size: np.ndarray, cost: _ComplexCost, threshold: float, rng: np.random.Generator
) -> TensorCheck:
    d = rng.standard_normal(g.shape)
    scale = float(np.sum(np.abs(size * d)))
    difference = abs(cost.derivative(name, d) - float(np.sum(g * d)))
    # A tensor that no example reaches is judged by the absolute difference.
    error = difference / scale if scale != 0.0 else difference
    if error <= threshold:
        return TensorCheck(name, error, True)
    want = np.empty_like(g)
    for entry in np.ndindex(g.shape):
        unit = np.zeros_like(g)
        unit[entry] = 1.0
        want[entry] = cost.derivative(name, unit)
    worst = np.unravel_index(int(np.argmax(np.abs(want - g))), g.shape)
    at = (int(worst[0]), int(worst[1]))
    return TensorCheck(name, error, False, at, float(g[at]), float(want[at]))
