"""Is the gradient the derivative of the cost? Checked tensor by tensor, through the network's own layer loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .._notebook import html_table
from ..errors import ConfigError
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from ..network.targets import check_rows, check_targets, check_weights
from .causes import Batch, cause_of
from .costs import CentralCost, ComplexCost, Rows, twin

MOST_TERMS = 64  # rows up to which the terms of the gradient are looked at one by one
THRESHOLD = 1e-12  # relative to sum |terms of g| |d|
CENTRAL_THRESHOLD = 1e-6  # the same where central differences decide
DIRECTIONS = 8  # drawn until one stays clear of kinks

Method = Literal["complex step", "central difference"]


@dataclass(frozen=True)
class TensorCheck:
    """One parameter tensor along one random direction.

    Attributes
    ----------
    name : str
        ``"W1"``, ``"b2"``, ``"gamma1"``, ...
    error : float
        |analytic - numerical| relative to the size of the terms.
    ok : bool
    method : {"complex step", "central difference"}
        What decided: differences do where a function of the network cannot take the complex step.
    worst : tuple or None
        After a failure: (row, column) of the entry that is furthest off, with ``got`` and ``want`` there.
    cause : str
        After a failure: what it looks like, or empty.
    """

    name: str
    error: float
    ok: bool
    method: Method = "complex step"
    worst: tuple[int, int] | None = None
    got: float = 0.0
    want: float = 0.0
    cause: str = ""

    @property
    def layer(self) -> int:
        """The number in the name."""
        return int(self.name.lstrip("Wbgam"))


@dataclass(frozen=True)
class GradientReport:
    """The outcome of :func:`gradcheck`: ``ok``, the largest ``error``, the ``first`` fault, one check per tensor."""

    tensors: tuple[TensorCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether every tensor is within the threshold."""
        return all(t.ok for t in self.tensors)

    @property
    def error(self) -> float:
        """The largest relative error."""
        return float(np.max([t.error for t in self.tensors]))  # NaN is the largest

    @property
    def first(self) -> TensorCheck | None:
        """The wrong tensor that the backward pass comes to first: its fault spoils the layers below."""
        wrong = [t for t in self.tensors if not t.ok]
        return max(wrong, key=lambda t: (t.layer, t.name[0] == "W"), default=None)

    def summary(self) -> str:
        """One line: ``gradient ok, ...``, or the layer, tensor and entry of the first fault with its likely cause."""
        t = self.first
        if t is None:
            return f"gradient ok, worst relative error {self.error:.1e}"
        at = "" if t.worst is None else f", entry {list(t.worst)}: {t.got:.9g} for {t.want:.9g}"
        return f"gradient wrong in layer {t.layer}, d{t.name}{at}" + f"; {t.cause}" * bool(t.cause)

    def __repr__(self) -> str:
        return f"<GradientReport: {self.summary()}>"

    def _repr_html_(self) -> str:
        header = ("tensor", "relative error", "by", "ok", "worst entry", "got", "want", "cause")
        rows = ((t.name, t.error, t.method, t.ok, t.worst, t.got, t.want, t.cause) for t in self.tensors)
        return html_table(self.summary(), header, rows)


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
    """Compare the network's gradient, on its own device in float64, with the derivative of its cost.

    The derivative is taken by the complex step. Where someone's own activation or loss cannot take it (it raises, or
    central differences contradict it), central differences decide: h = 1e-5 max(1, |theta|), in a direction that
    crosses no kink.

    Parameters
    ----------
    net : DenseNet
        Its parameters are read, not changed; dropout is checked with the masks of step 0.
    X, y, sample_weight : as for :meth:`DenseNet.cost`
        A few rows are enough.
    threshold : float, default 1e-12
        Largest accepted |difference| along a direction d, relative to the terms that the gradient is a sum of; 1e-6 at
        least where central differences decide.
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
    check = _Check(net, Rows(X, Y, weights), settings, threshold, np.random.default_rng(seed))
    return GradientReport(tuple(check.tensor(name) for name in check.gradient))


class _Check:
    """The gradient of a network and the two ways to differentiate its cost."""

    def __init__(
        self, net: DenseNet, rows: Rows, settings: dict[str, Any], threshold: float, rng: np.random.Generator
    ) -> None:
        self.threshold, self.rng = threshold, rng
        self.penalized = bool(settings.get("l1") or settings.get("l2"))
        mean = settings.get("reduction", "mean") == "mean"
        self.batch = Batch(rows.X.shape[0], net.sizes[-1], mean, rows.weights_sum)
        self._gradient(net, rows, settings)
        self.central = CentralCost(net, rows, settings)
        self.complex: ComplexCost | None = ComplexCost(net, rows, settings)

    def _gradient(self, net: DenseNet, rows: Rows, settings: dict[str, Any]) -> None:
        """dJ/dtheta, penalty included, by the network's own kernels in float64; and the terms it is a sum of.

        The terms are the examples' own gradients (each with the others at weight 0): where they cancel, what is left is
        rounding, and is judged by their size. Many rows do not cancel to the last digit, and are judged by their sum;
        so are the rows of a batch that is normalized, which have no gradients of their own.
        """
        copy = twin(net, "float64", net.backend, net.kernels_kind)
        step = TrainingStep(copy, "sgd", **settings)
        columns = copy.upload_columns(rows.X), copy.upload_columns(rows.Y)

        def gradient(w: np.ndarray | None, total: float | None) -> np.ndarray:
            step.gradient(*columns, None if w is None else copy.upload_columns(w), weights_sum=total)
            return copy.backend.to_host(copy.params.grad)

        m, named = self.batch.m, copy.params.named
        plain = gradient(rows.weights, rows.weights_sum)
        step.penalty()
        whole = copy.backend.to_host(copy.params.grad)
        size, terms = np.abs(whole) + np.abs(whole - plain), []
        if m <= MOST_TERMS and not any(net.batch_norm):
            given = np.ones((m, 1)) if rows.weights is None else rows.weights
            alone = (np.where(np.arange(m)[:, None] == i, given, 0.0) for i in range(m))
            terms = [gradient(w, rows.weights_sum or float(m)) for w in alone]
            size = sum(map(np.abs, terms), start=np.abs(whole - plain))
        self.gradient, self.size, self.terms = named(whole), named(size), [named(term) for term in terms]

    def tensor(self, name: str) -> TensorCheck:
        """One tensor: along a random direction, and entry by entry if that fails."""
        g = self.gradient[name]
        direction = self.rng.standard_normal(g.shape)
        numerical = self._by_complex_step(name, direction)
        if not math.isnan(numerical):
            error = self._error(name, direction, numerical)
            if error <= self.threshold:
                return TensorCheck(name, error, True)
        else:
            error = math.nan
        for moved, difference, rounding in self._differences(name, direction):
            # Differences are a witness against the complex step, not a better derivative.
            known = numerical if moved is direction else self._by_complex_step(name, moved)
            if abs(known - difference) <= CENTRAL_THRESHOLD * (self._scale(name, moved) + abs(known)) + rounding:
                break
            error = self._error(name, moved, difference)
            if error <= max(self.threshold, CENTRAL_THRESHOLD) + rounding / (self._scale(name, moved) or 1.0):
                return TensorCheck(name, error, True, "central difference")
            return self._swept(name, error, self.central)
        if self.complex is None:
            return TensorCheck(name, math.nan, False, "central difference", cause="a kink lies in every direction")
        return self._swept(name, error, self.complex)

    def _by_complex_step(self, name: str, direction: np.ndarray) -> float:
        """NaN where a function of the network refuses complex numbers."""
        if self.complex is None:
            return math.nan
        try:
            return self.complex.derivative(name, direction)
        except Exception:  # someone's own function may do anything with a complex number
            self.complex = None
            return math.nan

    def _differences(self, name: str, direction: np.ndarray) -> Iterator[tuple[np.ndarray, float, float]]:
        """The first direction, from the given one on, along which central differences tell something."""
        for _ in range(DIRECTIONS):
            difference, rounding = self.central.slope(name, direction)
            if not math.isnan(difference):
                yield direction, difference, rounding
                return
            direction = self.rng.standard_normal(direction.shape)

    def _scale(self, name: str, direction: np.ndarray) -> float:
        return float(np.sum(np.abs(self.size[name] * direction)))

    def _error(self, name: str, direction: np.ndarray, numerical: float) -> float:
        difference = abs(numerical - float(np.sum(self.gradient[name] * direction)))
        # A tensor that no example reaches is judged by the absolute difference.
        return difference / (self._scale(name, direction) or 1.0)

    def _swept(self, name: str, error: float, cost: ComplexCost | CentralCost) -> TensorCheck:
        """The failing tensor entry by entry; one whose derivative cannot be told counts as right."""
        g = self.gradient[name]
        want = np.empty_like(g)
        for entry in np.ndindex(g.shape):
            unit = np.zeros_like(g)
            unit[entry] = 1.0
            want[entry] = cost.derivative(name, unit)
        want = np.where(np.isnan(want), g, want)
        worst = np.unravel_index(int(np.argmax(np.abs(want - g))), g.shape)
        at = (int(worst[0]), int(worst[1]))
        terms = [term[name] for term in self.terms]
        penalized = self.penalized and name.startswith("W")
        cause = cause_of(g, want, self.batch, self.central.theta[name], terms, penalized)
        method: Method = "complex step" if isinstance(cost, ComplexCost) else "central difference"
        return TensorCheck(name, error, False, method, at, float(g[at]), float(want[at]), cause)
