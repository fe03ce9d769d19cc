"""The network and the step behind an estimator: made from its parameters, never pickled."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
from scipy.sparse import issparse

from ..backends.base import Backend
from ..backends.locks import Turns
from ..devices import parse
from ..errors import ConfigError, NonFiniteError
from ..maths.activations import Activation
from ..maths.losses import Loss
from ..maths.optimizers import Optimizer
from ..maths.schedules import Schedule
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from ..training.epoch import CapturedEpoch
from .initialization import Parameters
from .params import activations_of, batch_norm_of, dropout_of, invalid, optimizer_of, read, schedule_of
from .sampler import batches_over
from .scaled import ScaledStep

SLOW_DOUBLE = 4  # from here on a device's float64 is worth a word
LIVE = "live"


@dataclass(frozen=True)
class Plan:
    """What an engine is made from; equal plans make equal engines.

    ``report_mean``: True for scikit-learn's gradient of several outputs, False for a loss summed over outputs, None for
    the loss as it is (see ``scaled``).
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    loss: Loss
    dropout: tuple[float, ...]
    batch_norm: tuple[bool, ...]
    dtype: str
    device: str
    kernels: str
    optimizer: Optimizer
    schedule: Schedule
    alpha: float
    clip_norm: float | None
    report_mean: bool | None
    batch_size: int


def plan_for(estimator: Any, sizes: tuple[int, ...], loss: Loss, dtype: str, n_samples: int) -> Plan:
    """The plan that an estimator's parameters make for rows of a table."""
    e, n_hidden = estimator, len(sizes) - 2
    batch_size = n_samples if e.solver == "lbfgs" else batch_rows(e, n_samples)
    report_mean = None
    if loss.labels == "values" and sizes[-1] > 1:
        summed, imitated = loss.name == "poisson", e.loss_scaling == "sklearn"
        report_mean = False if summed else (True if imitated else None)
    return Plan(
        sizes=sizes,
        activations=read(e, "activation", lambda a: activations_of(a, n_hidden)),
        loss=loss,
        dropout=read(e, "dropout", lambda d: dropout_of(d, n_hidden)),
        batch_norm=read(e, "batch_norm", lambda b: batch_norm_of(b, n_hidden)),
        dtype=dtype,
        device=read(e, "device", lambda d: str(parse(d))),
        kernels=e.kernels,
        optimizer=read(e, "solver", lambda _: optimizer_of(e)),
        schedule=read(e, "learning_rate", schedule_of),
        alpha=float(e.alpha),
        clip_norm=None if e.clip_norm is None else float(e.clip_norm),
        report_mean=report_mean,
        batch_size=batch_size,
    )


def batch_rows(estimator: Any, n_samples: int) -> int:
    """Rows of a batch: ``batch_size``, at most all there are."""
    return min(200 if estimator.batch_size == "auto" else int(estimator.batch_size), n_samples)


def build_net(plan: Plan, seed: int, initializer: str = "zeros", beside: DenseNet | None = None) -> DenseNet:
    """The plan's network on its device; ``seed`` is that of dropout's masks and of named initializers.

    ``beside``: a network of the same plan, to share its device and its kernel set.
    """
    net = DenseNet(
        plan.sizes,
        activation=list(plan.activations),
        loss=plan.loss,
        initializer=initializer,
        dropout=list(plan.dropout),
        batch_norm=list(plan.batch_norm),
        dtype=plan.dtype,
        device=plan.device,
        seed=seed,
        kernels=plan.kernels,
        beside=beside,
    )
    _hint(net.backend, plan.dtype)
    return net


_hinted: set[str] = set()  # devices of which it was said that their float64 is slow


def _hint(backend: Backend, dtype: str) -> None:
    """Say once for each device that its float64, which rows of float64 ask for, is much slower than its float32."""
    if dtype != "float64" or backend.name in _hinted:
        return
    _hinted.add(backend.name)
    slower = backend.double_slowdown()
    if slower > SLOW_DOUBLE:
        warnings.warn(
            f"float64 is {slower} times slower than float32 on {backend.name}; pass dtype='float32' or float32 rows",
            stacklevel=2,
        )


class Engine:
    """A network with its step, and the programs that were recorded for the last rows."""

    def __init__(self, plan: Plan, net: DenseNet) -> None:
        self.plan, self.net = plan, net
        settings: dict[str, Any] = {"l2": plan.alpha, "clip_norm": plan.clip_norm, "schedule": plan.schedule}
        self.step: TrainingStep
        if plan.report_mean is None:
            self.step = TrainingStep(self.net, plan.optimizer, **settings)
        else:
            self.step = ScaledStep(self.net, plan.optimizer, report_mean=plan.report_mean, **settings)
        self._epochs: tuple[tuple[Any, ...], CapturedEpoch] | None = None

    @property
    def report_divisor(self) -> float:
        """What J is divided by before it is told to the user."""
        return float(getattr(self.step, "report_divisor", 1))

    def epochs(self, X: Any, Y: np.ndarray, weights: np.ndarray | None, shuffle: bool, *, again: bool) -> CapturedEpoch:
        """Passes over these rows; programs recorded for rows of the same shapes are used again.

        ``again``: other rows may follow, else these are read where they lie if they can be.
        """
        how: dict[str, Any] = {"batch_size": self.plan.batch_size, "shuffle": shuffle}
        if not again:
            return CapturedEpoch(self.step, batches_over(self.net, X, Y, weights, **how, copy=False), None)
        key = (X.shape, issparse(X), Y.shape, weights is None, self.plan.batch_size, shuffle)
        if self._epochs is not None and self._epochs[0] == key:
            batches = self._epochs[1].batches
            batches.refill(X.toarray() if issparse(X) and batches.on == "device" else X, Y, weights)
            batches.sampler.set_weights(weights)  # type: ignore[union-attr]
        else:
            self._epochs = None
            self.step.release(scratch=False)  # or every number of rows would leave its buffers behind
            self._epochs = key, CapturedEpoch(self.step, batches_over(self.net, X, Y, weights, **how), None)
        return self._epochs[1]

    # -- parameters, in scikit-learn's shapes ------------------------------------------------------------------------

    def load(self, parameters: Parameters, norms: Mapping[str, np.ndarray]) -> None:
        """coefs (n_{l-1}, n_l), intercepts (n_l,) and what normalized layers have beside them to the device.

        Raises
        ------
        ShapeError
            If they are not this network's.
        """
        self.net.set_parameters(as_named(parameters) | dict(norms))

    def fitted(self) -> dict[str, Any]:
        """The fitted attributes that hold the network's parameters, on the host."""
        return fitted_of(self.net.parameters())

    def check_outputs(self, X: np.ndarray) -> None:
        """That what the last step made, which no cost has seen, gives numbers for rows X (m, n_0).

        Raises
        ------
        NonFiniteError
            If it does not; the weights are then those with which the last epoch began.
        """
        with self.step.averaged():
            finite = self.outputs_are_finite(X)
        if not finite:
            self.step.recover()
            raise NonFiniteError("the outputs became infinite or NaN in the last epoch")

    def outputs_are_finite(self, X: np.ndarray) -> bool:
        """Whether the network's weights, which may be finite and yet useless, give numbers for rows X (m, n_0)."""
        with np.errstate(all="ignore"):
            return bool(np.isfinite(self.net.predict_proba(X)).all())

    # -- the optimizer's state ---------------------------------------------------------------------------------------

    def set_rate(self, rate: float) -> None:
        """Learning rate of the steps from now on; recorded programs read it with their other numbers."""
        self.step.optimizer = replace(self.step.optimizer, learning_rate=rate)


def as_named(parameters: Parameters) -> dict[str, np.ndarray]:
    """``{"W1": (n_1, n_0), "b1": (n_1, 1), ...}`` from coefs and intercepts."""
    named = {}
    for l, (coef, intercept) in enumerate(zip(*parameters, strict=True), start=1):
        named[f"W{l}"], named[f"b{l}"] = np.asarray(coef).T, np.asarray(intercept).reshape(-1, 1)
    return named


def as_parameters(named: dict[str, np.ndarray]) -> Parameters:
    """The inverse of :func:`as_named`."""
    L = sum(name.startswith("W") for name in named)
    coefs = [np.ascontiguousarray(named[f"W{l}"].T) for l in range(1, L + 1)]
    return coefs, [named[f"b{l}"].reshape(-1).copy() for l in range(1, L + 1)]


def fitted_of(named: dict[str, np.ndarray]) -> dict[str, Any]:
    """``coefs_``, ``intercepts_`` and, with normalized layers, ``norms_``: their gamma, mean and variance by name."""
    coefs, intercepts = as_parameters(named)
    norms = {name: x for name, x in named.items() if name.rstrip("0123456789") not in ("W", "b")}
    return {"coefs_": coefs, "intercepts_": intercepts} | ({"norms_": norms} if norms else {})


def named_of(attributes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of :func:`fitted_of`."""
    return as_named((attributes["coefs_"], attributes["intercepts_"])) | dict(attributes.get("norms_", {}))


@dataclass
class SolverState:
    """Where an optimizer stands between calls: its rate, the steps it has taken, its vectors by name and layer.

    ``slots[LIVE]``: the parameters themselves between calls of ``partial_fit``, where the estimator has their average.
    """

    learning_rate: float
    t: int = 0
    slots: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def suits(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer can go on from here: it has the vectors that it needs, and they are not another's."""
        held, needed = set(self.slots) - {LIVE}, set(optimizer.state)
        return not needed or (needed <= held and held - needed <= {"average"})

    def to(self, engine: Engine) -> None:
        """Put the state where the engine's next step reads it."""
        step, net = engine.step, engine.net
        step.t = self.t
        engine.set_rate(self.learning_rate)
        with net.backend.activate():
            for name, slot in zip(step.optimizer.state, step.slots, strict=True):
                host = net.params.flat(self.slots[name]) if name in self.slots else np.zeros(slot.shape)
                slot[...] = net.backend.asarray(host, net.dtype)

    def take(self, engine: Engine) -> None:
        """Bring the state back to the host."""
        step, net = engine.step, engine.net
        self.t = step.t
        names = step.optimizer.state
        self.slots = {n: net.params.named(net.backend.to_host(s)) for n, s in zip(names, step.slots, strict=True)}


class Runtime:
    """What an estimator keeps on the device: the engine of a fit that goes on, and the network that predicts.

    Attributes
    ----------
    turns, fits : Turns
        A fit and whatever reads what it writes take ``turns``, so that another thread waits; while callbacks are told,
        it may have a turn, and sees the network as it is then. ``fits`` keeps a second fit out until the end.
    """

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.network: tuple[tuple[Any, ...], DenseNet] | None = None
        self.fitting: Engine | None = None
        self.fits, self.turns = Turns(brief=False), Turns(brief=False)
        self.device = ""  # of the last fit

    def engine_for(self, estimator: Any, plan: Plan, seed: int, beside: DenseNet | None = None) -> Engine:
        """The engine that was kept, if it was made from the same plan; else a new one, which is kept.

        ``beside``: see :func:`build_net`.

        Raises
        ------
        InvalidParameterError
            For a combination of parameters that the network or the step refuses.
        """
        if self.engine is None or self.engine.plan != plan or self.engine.net.seed != seed:
            try:
                self.engine = Engine(plan, build_net(plan, seed, beside=beside))
            except ConfigError as error:
                about = [name for name in ("epsilon", "activation", "loss") if name in str(error)]
                raise invalid(estimator, about[0] if about else "solver", error) from error
        self.device = self.engine.net.backend.name
        return self.engine

    def network_for(self, key: tuple[Any, ...], make: Callable[[], DenseNet]) -> DenseNet:
        """The network that was kept, if it was made under an equal key; else a new one, which is kept."""
        if self.network is None or self.network[0] != key:
            self.network = key, make()
        return self.network[1]


def runtime_of(estimator: Any) -> Runtime:
    """The estimator's, made at first use; it is no part of its state."""
    found: Runtime = vars(estimator).get("_runtime") or vars(estimator).setdefault("_runtime", Runtime())
    return found


F = TypeVar("F", bound=Callable[..., Any])


def in_turn(method: F) -> F:
    """A method of an estimator that other threads' fits and predictions wait for, and it for them."""

    @functools.wraps(method)
    def alone(self: Any, *given: Any, **named: Any) -> Any:
        with runtime_of(self).turns.taken():
            return method(self, *given, **named)

    return cast(F, alone)


@contextlib.contextmanager
def one_fit(estimator: Any) -> Iterator[None]:
    """Within it no other thread fits the estimator, and none uses it but while callbacks are told."""
    runtime = runtime_of(estimator)
    with runtime.fits.taken(), runtime.turns.taken():
        yield
