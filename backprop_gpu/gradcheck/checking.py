"""Is the gradient the derivative of the cost? Checked tensor by tensor, through the network's own layer loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .._notebook import html_table
from ..backends.builtin import is_builtin
from ..errors import ConfigError
from ..network import memory
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from ..network.targets import check_rows, check_targets, check_weights
from .costs import NEGLIGIBLE, CentralCost, ComplexCost, Rows, network_copy, takes_complex_step
from .derivative import WITNESS
from .diagnosis import Batch, diagnose
from .roundings import responses, spread

MOST_TERMS = 64  # rows up to which a cause is looked for in the terms of a wrong gradient, one by one
MOST_SWEPT = 1024  # entries up to which a tensor is swept by differences, which take some forty passes each
THRESHOLD = 1e-12  # relative to the size of the gradient's terms
CENTRAL_THRESHOLD = 1e-6  # the same where central differences decide
ROUNDING = 1e-2  # of the size of the terms: that of a rounding's effect, so that 1e-12 allows 90 of them
NOTHING = 1e-100  # smaller numbers underflow on the way
DIRECTIONS = 8  # drawn until differences tell something along one
NEARBY = 1e-2  # how far parameters are moved, relative to max(1, |theta|), to get away from ties

Method = Literal["complex step", "central difference"]
SHARP: Method = "complex step"
CENTRAL: Method = "central difference"
UNDECIDED = "a kink or noise in every direction: move the parameters or the rows"


def layer_of(name: str) -> int:
    """The number in a tensor's name."""
    return memory.layer_of(name)


@dataclass(frozen=True)
class TensorCheck:
    """One parameter tensor along one random direction.

    Attributes
    ----------
    name : str
        ``"W1"``, ``"b2"``, ``"gamma1"``, ...
    error : float
        |analytic - numerical| relative to the size of the terms that the gradient is a sum of.
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
        return layer_of(self.name)

    @property
    def broken(self) -> bool:
        """Whether the gradient holds NaN or infinities."""
        return not math.isfinite(self.got)

    @property
    def decided(self) -> bool:
        """Whether anything could be decided about it."""
        return self.cause != UNDECIDED


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

    The derivative is taken by the complex step. An activation or loss of someone's own is witnessed by central
    differences too, which decide where the two disagree: a function that drops imaginary parts (``abs``,
    ``np.linalg.norm``, ``np.real``) misleads the complex step. There a gradient is wrong if it is wrong at parameters
    nearby as well: at a tie of ``np.maximum`` itself any slope in between is right.

    Parameters
    ----------
    net : DenseNet
        Its parameters are read, not changed; dropout is checked with the masks of step 0.
    X, y, sample_weight : as for :meth:`DenseNet.cost`
        A few rows are enough.
    threshold : float, default 1e-12
        Largest accepted ``|difference|`` along a direction d, relative to the size of the terms summed: ``sum |g d|``
        and, where terms cancel or functions are ill-conditioned, what roundings on the way make of g. 1e-6 at least
        where central differences decide.
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
    rows, rng = Rows(X, Y, weights), np.random.default_rng(seed)
    check = _Check(net, rows, settings, threshold, rng)
    tensors = [check.tensor(name) for name in check.gradient]
    if check.own and math.isfinite(check.central.value) and not all(t.ok for t in tensors):
        nearby = _Check(_moved(net, rng), rows, settings, threshold, rng)
        tensors = [t if t.ok or t.broken else _of_both(t, nearby.tensor(t.name)) for t in tensors]
    return GradientReport(tuple(tensors))


def _moved(net: DenseNet, rng: np.random.Generator) -> DenseNet:
    """The same network at parameters nearby, where no tie is exact."""
    copy = network_copy(net, "float64", net.backend, net.kernels_kind)
    named = copy.parameters()
    for name, *_ in copy.params.spans:
        x = named[name]
        named[name] = x + NEARBY * max(1.0, float(np.max(np.abs(x)))) * rng.uniform(-1.0, 1.0, x.shape)
    copy.set_parameters(named)
    return copy


def _of_both(here: TensorCheck, nearby: TensorCheck) -> TensorCheck:
    """Of a tensor that failed: what is said where there are no ties, if it is right there, or here nothing is told."""
    return nearby if nearby.ok or not here.decided else here


class _Check:
    """The gradient of a network and the two ways to differentiate its cost."""

    def __init__(
        self, net: DenseNet, rows: Rows, settings: dict[str, Any], threshold: float, rng: np.random.Generator
    ) -> None:
        self.net, self.rows, self.settings, self.threshold, self.rng = net, rows, settings, threshold, rng
        self.own = not (is_builtin(net.loss) and all(map(is_builtin, net.activations[1:-1])))
        self.penalized = bool(settings.get("l1") or settings.get("l2"))
        mean = settings.get("reduction", "mean") == "mean"
        self.batch = Batch(rows.X.shape[0], net.sizes[-1], mean, rows.weights_sum, net.members)
        self.gradient = _gradients(net, rows, settings, [None])[0]
        self.whole = sum(float(np.sum(np.abs(g))) for g in self.gradient.values())
        # A weight's derivative has the size of a bias's times that of the rows.
        self.reach = max(1.0, float(np.max(np.abs(rows.X), initial=0.0, where=np.isfinite(rows.X))))
        self.central = CentralCost(net, rows, settings)
        self.complex = ComplexCost(net, rows, settings)
        self.misled = self._last_misled()
        self.roundings = responses(net, rows, settings, rng, by_complex_step=not self.misled)

    def _last_misled(self) -> int:
        """The last layer with a function of someone's own that the complex step cannot see through; L: the loss."""
        if not (self.own and math.isfinite(self.central.value)):
            return 0
        try:
            self.complex.derivative("W1", np.ones_like(self.gradient["W1"]))
        except Exception:  # someone's own function may do anything with a complex number
            return self.net.L
        own = [*(not is_builtin(g) for g in self.net.activations[: self.net.L]), not is_builtin(self.net.loss)]
        functions = [part for part in self.central.functions() if own[part[0]]]
        return max((l for l, f, Z in functions if not takes_complex_step(f, Z, self.rng)), default=0)

    def tensor(self, name: str) -> TensorCheck:
        """One tensor: along a random direction, and entry by entry if that fails."""
        if not math.isfinite(self.central.value):
            cause = f"the cost is {self.central.value} at these parameters, where nothing has a derivative"
            return TensorCheck(name, math.nan, False, cause=cause)
        if layer_of(name) <= self.misled:
            return self._by_differences(name)
        direction = self.rng.standard_normal(self.gradient[name].shape)
        numerical = self.complex.derivative(name, direction)
        error = self._error(name, direction, numerical)
        if self.own and error > self.threshold:  # functions of the package are not ill-conditioned themselves
            error = self._error(
                name, direction, numerical, spread(self.net, self.rows, self.settings, name, direction, self.rng)
            )
        return TensorCheck(name, error, True) if error <= self.threshold else self._swept(name, error, self.complex)

    def _by_differences(self, name: str) -> TensorCheck:
        """By the first direction along which differences tell something."""
        g = self.gradient[name]
        if not np.all(np.isfinite(g)):
            return self._swept(name, math.nan, self.central)
        for _ in range(DIRECTIONS):
            direction = self.rng.standard_normal(g.shape)
            value, uncertain = self.central.slope(name, direction)
            size, rounding = float(np.sum(np.abs(g * direction))), self.threshold * self._size(name, direction)
            negligible = NEGLIGIBLE * self.reach * max(abs(self.central.value), self.whole)
            if not 4.0 * uncertain <= max(WITNESS * size, negligible, rounding):
                continue  # a kink or noise
            allowed = 4.0 * uncertain + max(CENTRAL_THRESHOLD, self.threshold) * size + rounding
            ok = abs(value - float(np.sum(g * direction))) <= allowed
            error = self._error(name, direction, value)
            return TensorCheck(name, error, True, CENTRAL) if ok else self._swept(name, error, self.central)
        return TensorCheck(name, math.nan, False, CENTRAL, cause=UNDECIDED)

    def _size(self, name: str, direction: np.ndarray) -> float:
        """Of the terms of g . d: their own, and that by which their roundings are checked."""
        errors = [float(np.sum(response[name] * direction)) for response in self.roundings]
        size = float(np.sum(np.abs(self.gradient[name] * direction)) + ROUNDING * np.sqrt(np.mean(np.square(errors))))
        return size if size > NOTHING else 1.0  # a tensor that no example reaches is checked by the absolute difference

    def _error(self, name: str, direction: np.ndarray, numerical: float, spread: float = 0.0) -> float:
        along = self.gradient[name] * direction
        difference = abs(numerical - float(np.sum(along)))
        # However ill-conditioned, what differences could see is an error.
        most = CENTRAL_THRESHOLD / max(self.threshold, THRESHOLD) * float(np.sum(np.abs(along)))
        return difference / (self._size(name, direction) + min(ROUNDING * spread, most))

    def _swept(self, name: str, error: float, cost: ComplexCost | CentralCost) -> TensorCheck:
        """The failing tensor entry by entry; one whose derivative cannot be told counts as right."""
        g, method = self.gradient[name], CENTRAL if isinstance(cost, CentralCost) else SHARP
        if isinstance(cost, CentralCost) and g.size > MOST_SWEPT:
            broken = int(np.count_nonzero(~np.isfinite(g)))
            return TensorCheck(name, error, False, method, cause=f"{broken} entries are NaN or infinite" * bool(broken))
        want = np.empty_like(g)
        for entry in np.ndindex(g.shape):
            unit = np.zeros_like(g)
            unit[entry] = 1.0
            want[entry] = self._entry(cost, name, unit, float(g[entry]))
        worst = np.unravel_index(int(np.argmax(np.abs(want - g))), g.shape)
        at = (int(worst[0]), int(worst[1]))
        cause = diagnose(g, want, self.batch, self.central.theta[name], self._terms(name), self._carries_penalty(name))
        return TensorCheck(name, error, False, method, at, float(g[at]), float(want[at]), cause)

    @staticmethod
    def _entry(cost: ComplexCost | CentralCost, name: str, unit: np.ndarray, got: float) -> float:
        """The derivative by one entry, or what was got if differences cannot tell it from that."""
        if isinstance(cost, ComplexCost):
            return cost.derivative(name, unit)
        value, uncertain = cost.slope(name, unit)
        return got if abs(got - value) <= 4.0 * uncertain else value

    def _carries_penalty(self, name: str) -> bool:
        return self.penalized and name.startswith("W")

    def _terms(self, name: str) -> list[np.ndarray]:
        """The examples' own gradients (each with the others at weight 0), where there are few.

        The rows of a batch that is normalized have no gradients of their own.
        """
        m, w = self.batch.m, self.rows.weights
        if m > MOST_TERMS or any(self.net.batch_norm):
            return []
        given = np.ones((m, 1)) if w is None else w
        alone = [np.where(np.arange(m)[:, None] == i, given, 0.0) for i in range(m)]
        found = _gradients(self.net, self.rows, self.settings | {"l1": 0.0, "l2": 0.0}, alone)
        return [term[name] for term in found]


def _gradients(
    net: DenseNet, rows: Rows, settings: dict[str, Any], weights: Sequence[np.ndarray | None]
) -> list[dict[str, np.ndarray]]:
    """dJ/dtheta, penalty included, by the network's own kernels in float64; None: with the weights of the rows."""
    copy = network_copy(net, "float64", net.backend, net.kernels_kind)
    step = TrainingStep(copy, "sgd", **settings)
    X, Y = copy.upload_columns(rows.X), copy.upload_columns(rows.Y)
    found = []
    for one in weights:
        w = rows.weights if one is None else one
        total = rows.weights_sum or (None if one is None else float(rows.X.shape[0]))
        step.gradient(X, Y, None if w is None else copy.upload_columns(w), weights_sum=total)
        step.penalty()
        found.append(copy.params.named(copy.backend.to_host(copy.params.grad)))
    return found
