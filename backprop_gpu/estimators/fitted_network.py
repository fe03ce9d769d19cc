"""The network behind an estimator and the step that trains it: made from its parameters, never pickled."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np

from ..backends.base import Backend
from ..backends.collective import Collective
from ..backends.locks import FairLock
from ..devices import parse
from ..errors import ConfigError
from ..maths.activations import Activation
from ..maths.ledger import Denominator
from ..maths.losses import Loss
from ..maths.optimizers import Optimizer
from ..maths.schedules import Schedule
from ..network.dense_net import DenseNet
from ..network.state import State
from ..network.step import TrainingStep
from ..training.callbacks import Callback
from ..training.epoch import JointEpoch
from ..training.history import History
from ..training.loop import FitState
from ..training.ranks import sharing
from .params import activations_of, batch_norm_of, batch_rows, dropout_of, invalid, optimizer_of, read, schedule_of

Parameters = tuple[list[np.ndarray], list[np.ndarray]]

SLOW_DOUBLE = 4  # from here on a device's float64 is worth a word
RAW_WEIGHTS = "live"  # what files call the weights themselves, where the estimator has their average


@dataclass(frozen=True)
class Plan:
    """What a network and its step are made from; equal plans make equal ones.

    ``report_mean``: True for scikit-learn's gradient of several outputs, False for a loss summed over outputs, None for
    the loss as it is (see :class:`ScaledStep`).
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    loss: Loss
    dropout: tuple[float, ...]
    batch_norm: tuple[bool, ...]
    members: int
    dtype: str
    device: str
    kernels: str
    optimizer: Optimizer
    schedule: Schedule
    alpha: float
    clip_norm: float | None
    report_mean: bool | None
    batch_size: int
    ranks: Collective


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
        members=int(e.batch_ensemble),
        dtype=dtype,
        device=read(e, "device", lambda d: str(sharing().ranks.device(str(parse(d))))),
        kernels=e.kernels,
        optimizer=read(e, "solver", lambda _: optimizer_of(e)),
        schedule=read(e, "learning_rate", schedule_of),
        alpha=float(e.alpha),
        clip_norm=None if e.clip_norm is None else float(e.clip_norm),
        report_mean=report_mean,
        batch_size=batch_size,
        ranks=sharing().ranks,
    )


def build_net(plan: Plan, seed: int, initializer: str = "zeros", share_with: DenseNet | None = None) -> DenseNet:
    """The plan's network on its device; ``seed`` is that of dropout's masks and of named initializers.

    ``share_with``: a network of the same plan, to share its device and its kernel set.
    """
    net = DenseNet(
        plan.sizes,
        activation=list(plan.activations),
        loss=plan.loss,
        initializer=initializer,
        dropout=list(plan.dropout),
        batch_norm=list(plan.batch_norm),
        members=plan.members,
        dtype=plan.dtype,
        device=plan.device,
        seed=seed,
        kernels=plan.kernels,
        share_with=share_with,
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


class ScaledStep(TrainingStep):
    """A step whose loss is summed over outputs: J = K mean L + penalty with K outputs.

    The cost of our losses averages outputs. scikit-learn's Poisson loss sums them; its squared error reports the
    average and follows the gradient of the sum (scikit-learn#8349), which is not the derivative of what it reports:
    with ``report_mean`` the cost that is left is K (mean L + penalty).

    ``report_divisor`` is what the cost has to be divided by: 1, or K with ``report_mean``. The gradient is that of the
    first form in both.
    """

    def __init__(self, net: DenseNet, optimizer: Any, *, report_mean: bool, **settings: Any) -> None:
        self.outputs, self.report_mean = net.sizes[-1], report_mean
        super().__init__(net, optimizer, **settings)
        self.report_divisor = self.outputs if report_mean else 1
        with net.backend.activate():
            self._no_gradient = net.backend.zeros((net.params.n_weights if report_mean else 1,), net.dtype)

    def step_scalars(self, k: int, D: Denominator) -> list[float]:
        """Those of a step, with K/D in place of 1/D, and the strength of the penalty that is only reported."""
        inverse, l1, l2, *scalars = super().step_scalars(k, D)
        return [self.outputs * inverse, l1, l2, *scalars, (self.outputs - 1) * l2]

    def penalty(self) -> None:
        """Adds the penalty, then adds (K-1) times its value to the reported cost only."""
        super().penalty()
        if self.report_mean and self.l2:
            p, n = self.net.params, self.net.params.n_weights
            with self.net.backend.activate():
                self.net.kernels.penalty(
                    p.theta[:n], self._no_gradient, l1=None, l2=self._step_scalars[-1:], value=self.value
                )


class FittedNetwork:
    """A network with its step, and the epoch that was captured for the last rows of ``partial_fit``.

    Attributes
    ----------
    captured : JointEpoch or None
    key : tuple
        Other rows of an equal key can be trained on by it.
    """

    def __init__(self, plan: Plan, net: DenseNet) -> None:
        self.plan, self.net = plan, net
        settings: dict[str, Any] = {"l2": plan.alpha, "clip_norm": plan.clip_norm, "schedule": plan.schedule}
        settings["ranks"] = plan.ranks
        self.step: TrainingStep
        if plan.report_mean is None:
            self.step = TrainingStep(self.net, plan.optimizer, **settings)
        else:
            self.step = ScaledStep(self.net, plan.optimizer, report_mean=plan.report_mean, **settings)
        self.captured: JointEpoch | None = None
        self.key: tuple[Any, ...] = ()

    @property
    def score(self) -> str:
        """The metric that is scikit-learn's score."""
        return "r2" if self.net.loss.labels == "values" else "accuracy"

    def forget(self, key: tuple[Any, ...]) -> None:
        """Free the captured epoch: every number of rows would leave its buffers behind."""
        if self.captured is not None:
            self.step.release(scratch=False)
        self.captured, self.key = None, key

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

    def set_rate(self, rate: float) -> None:
        """Learning rate of the steps from now on; captured epochs read it with their other scalars."""
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


def sizes_of(estimator: Any) -> tuple[int, ...]:
    """Units per layer of a fitted estimator's network; members' output layers are side by side."""
    *hidden, outputs = (c.shape[1] for c in estimator.coefs_)
    return (estimator.coefs_[0].shape[0], *hidden, outputs // estimator.batch_ensemble)


def named_of(attributes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of :func:`fitted_of`."""
    return as_named((attributes["coefs_"], attributes["intercepts_"])) | dict(attributes.get("norms_", {}))


@dataclass
class OptimizerState:
    """Where an optimizer stands between calls: its rate, the steps it has taken, its vectors by name and layer.

    ``vectors[RAW_WEIGHTS]``: the weights themselves between calls of ``partial_fit``, where the estimator has their
    average.
    """

    learning_rate: float
    t: int = 0
    vectors: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def suits(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer can go on from here: it has the vectors that it needs, and they are not another's."""
        held, needed = set(self.vectors) - {RAW_WEIGHTS}, set(optimizer.state)
        return not needed or (needed <= held and held - needed <= {"average"})

    def load_into(self, fitted: FittedNetwork) -> None:
        """Put the state where the network's next step reads it."""
        step, net = fitted.step, fitted.net
        step.t = self.t
        fitted.set_rate(self.learning_rate)
        with net.backend.activate():
            for name, vector in zip(step.optimizer.state, step.optimizer_state, strict=True):
                host = net.params.flat(self.vectors[name]) if name in self.vectors else np.zeros(vector.shape)
                vector[...] = net.backend.asarray(host, net.dtype)

    def read_from(self, fitted: FittedNetwork) -> None:
        """Bring the state back to the host."""
        step, net = fitted.step, fitted.net
        self.t, held = step.t, zip(step.optimizer.state, step.optimizer_state, strict=True)
        self.vectors = {name: net.params.named(net.backend.to_host(vector)) for name, vector in held}


class DeviceState:
    """What an estimator keeps on the device; no part of it is pickled or copied. Callbacks know it as their trainer.

    Attributes
    ----------
    kept : FittedNetwork or None
        That of a fit that may go on, by ``partial_fit``.
    fitting : FittedNetwork or None
        That of the fit under way.
    predictor : (key, DenseNet) or None
        The network that predicts.
    current : FitState or None
        The fit under way.
    take_state : callable or None
        Gives its state.
    lock, fits : FairLock
        A fit and whatever reads what it writes take ``lock``, so that another thread waits; while callbacks are
        called, it may have a turn, and sees the network as it is then. ``fits`` keeps a second fit out until the end.
    """

    def __init__(self) -> None:
        self.kept: FittedNetwork | None = None
        self.fitting: FittedNetwork | None = None
        self.predictor: tuple[tuple[Any, ...], DenseNet] | None = None
        self.current: FitState | None = None
        self.take_state: Callable[[], State] | None = None
        self._paused = False
        self.fits, self.lock = FairLock(brief=False), FairLock(brief=False)
        self.device = ""  # of the last fit

    def network_to_fit(
        self, estimator: Any, plan: Plan, seed: int, share_with: DenseNet | None = None
    ) -> FittedNetwork:
        """The network that was kept, if it was made from the same plan; else a new one, which is kept.

        ``share_with``: see :func:`build_net`.

        Raises
        ------
        InvalidParameterError
            For a combination of parameters that the network or the step refuses.
        """
        if self.kept is None or self.kept.plan != plan or self.kept.net.seed != seed:
            try:
                self.kept = FittedNetwork(plan, build_net(plan, seed, share_with=share_with))
            except ConfigError as error:
                names = ("epsilon", "activation", "loss", "members", "batch_norm")
                name = next((name for name in names if name in str(error)), "solver")
                raise invalid(estimator, "batch_ensemble" if name == "members" else name, error) from error
        self.device = self.kept.net.backend.name
        return self.kept

    @contextlib.contextmanager
    def pause(self, fit: FitState | None) -> Iterator[None]:
        """Within it a fit is between two steps: its state can be taken, and other threads may use the estimator."""
        self.current, self._paused = fit, True
        try:
            with self.lock.released():
                yield
        finally:
            self._paused = False

    @property
    def history(self) -> History:
        """Of the fit under way."""
        assert self.current is not None, "a fit is under way"
        return self.current.history

    @property
    def callbacks(self) -> list[Callback]:
        """Of the fit under way."""
        assert self.current is not None, "a fit is under way"
        return self.current.callbacks

    def state_dict(self) -> State:
        """See ``MLPClassifier.state_dict``."""
        if self.take_state is None or not self._paused:
            raise ConfigError("a fit's state is there between two steps: call state_dict in a callback's on_epoch")
        return self.take_state()

    def network_to_predict(self, key: tuple[Any, ...], make: Callable[[], DenseNet]) -> DenseNet:
        """The network that was kept, if it was made under an equal key; else a new one, which is kept."""
        if self.predictor is None or self.predictor[0] != key:
            self.predictor = key, make()
        return self.predictor[1]


def device_state(estimator: Any) -> DeviceState:
    """The estimator's, made at first use; it is no part of its state."""
    found: DeviceState = vars(estimator).get("_device_state") or vars(estimator).setdefault(
        "_device_state", DeviceState()
    )
    return found


F = TypeVar("F", bound=Callable[..., Any])


def exclusive(method: F) -> F:
    """A method of an estimator that other threads' fits and predictions wait for, and it for them."""

    @functools.wraps(method)
    def alone(self: Any, *given: Any, **named: Any) -> Any:
        with device_state(self).lock.held():
            return method(self, *given, **named)

    return cast(F, alone)


@contextlib.contextmanager
def one_fit(estimator: Any) -> Iterator[None]:
    """Within it no other thread fits the estimator, and none uses it but while callbacks are called."""
    state = device_state(estimator)
    with state.fits.held(), state.lock.held():
        yield
