"""One optimizer step: gradient over micro-batches, reduce, penalty, clip, update."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._typing import Array, Program
from ..backends.collective import SINGLE, Collective
from ..backends.locks import locked
from ..errors import ConfigError, DataError
from ..maths.ledger import Denominator
from ..maths.normalization import part_sizes
from ..maths.optimizers import Optimizer, get_optimizer
from ..maths.schedules import Schedule, get_schedule
from . import layer_loop
from .custom import check_custom_rule
from .dense_net import DenseNet
from .memory import Snapshot, Workspace, Workspaces, allocate_or_raise, state_of
from .parameter_groups import ParameterGroups
from .settings import check_epsilon, check_penalties, check_ranks, check_step_choices
from .state import State, load_step_state, step_state
from .targets import BatchSource, check_batch, columns_on_device


class TrainingStep:
    """A network with its optimizer: call it with a batch, and the parameters have moved.

    Parameters
    ----------
    net : DenseNet
    optimizer : str, dict or Optimizer, default "adam"
    schedule : str, dict or Schedule, default "constant"
        Multiplies the optimizer's learning rate.
    total_steps : int, default 1
        Length of the run, for the schedules that need it.
    delta : {"fused", "literal"}, default "fused"
        Start the backward pass from the logits (the derivative of the reported cost), or from the vectorized
        ``dAL = -(Y/AL - (1-Y)/(1-AL))`` and then g'.
    one_over_m : {"early", "late"}, default "early"
        Where 1/D is applied: in dZ[L], or in dW and db (course week 4).
    reduction : {"mean", "sum"}, default "mean"
        J is the (weighted) mean of L, or its sum.
    l1, l2 : float, default 0.0
        Penalty ``l2/2 |W|^2 + l1 |W|_1`` over the weights, divided by D if ``penalty_over`` is "examples".
    penalty_over : {"examples", "none"}, default "examples"
        The course and scikit-learn divide by the batch's m (or the sum of its weights), others do not.
    clip_norm : float or None, default None
        Upper limit of the gradient's global norm.
    learning_rate_factors : mapping of str to float, optional
        Multiply the learning rate of tensors, by name or kind: ``{"b": 0.1, "W1": 2.0}``; 0 leaves them as they are.
    parametrization : {"standard", "ntk"}, default "standard"
        "ntk": the optimizer moves V of W = V / sqrt(inputs) (``network.parameter_groups``); needs no other network.

    Raises
    ------
    ConfigError
        For a setting out of its range.
    """

    report_divisor: int = 1  # what J is divided by before it is reported

    def __init__(
        self,
        net: DenseNet,
        optimizer: str | dict[str, Any] | Optimizer = "adam",
        *,
        schedule: str | dict[str, Any] | Schedule = "constant",
        total_steps: int = 1,
        delta: str = "fused",
        one_over_m: str = "early",
        reduction: str = "mean",
        l1: float = 0.0,
        l2: float = 0.0,
        penalty_over: str = "examples",
        clip_norm: float | None = None,
        learning_rate_factors: Mapping[str, float] | None = None,
        parametrization: str = "standard",
        ranks: Collective = SINGLE,
    ) -> None:
        check_step_choices(net.loss, delta, one_over_m, penalty_over, reduction)
        check_penalties(l1, l2, clip_norm)
        check_ranks(ranks, net.kernels_kind, net.batch_norm)
        self.ranks = ranks
        self.net, self.optimizer, self.schedule = net, get_optimizer(optimizer), get_schedule(schedule)
        check_custom_rule(net.backend, net.dtype, self.optimizer, self.schedule)
        check_epsilon(self.optimizer, net.dtype)
        self.total_steps, self.delta, self.one_over_m, self.reduction = total_steps, delta, one_over_m, reduction
        self.l1, self.l2, self.penalty_over, self.clip_norm = l1, l2, penalty_over, clip_norm
        self.groups = ParameterGroups(net.params, self.optimizer, learning_rate_factors or {}, parametrization)
        self.t, self.lock = 0, net.lock
        self._workspaces = Workspaces()
        self._make_buffers()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Its buffers are views of each other, and recorded programs hold their addresses.
        raise ConfigError("a training step can be neither copied nor pickled; copy its net, and make a step for that")

    def _make_buffers(self) -> None:
        """Allocate the step's buffers: everything that changes from step to step is on the device."""
        backend, dtype = self.net.backend, self.net.dtype
        with backend.activate():
            self._counters = backend.zeros((2,), "int64")
            n_step_scalars = len(self.step_scalars(0, Denominator(1.0)))
            self._step_scalars = backend.zeros((n_step_scalars,), dtype)
            self._inverse, self._l1, self._l2 = (self._step_scalars[i : i + 1] for i in range(3))
            self._scalars = self._step_scalars[3 : 3 + self.groups.n_scalars(self.optimizer)]
            self.value = backend.zeros((1,), dtype)
            self._table, self._values = backend.zeros((1, n_step_scalars), dtype), backend.zeros((1,), dtype)
            self.norm, self._factor = backend.zeros((1,), dtype), backend.zeros((1,), dtype)
            vectors = 2 * len(self.optimizer.state) + bool(self.optimizer.average) + 1
            with allocate_or_raise(backend, self.net.sizes, dtype, f"{self.optimizer.name} state vectors", vectors):
                size, n_vectors = self.net.params.theta.shape[0], len(self.optimizer.state)
                # One buffer: an epoch copies it and looks at it, which takes longer than a step of a small network.
                self._state_vectors = backend.zeros((n_vectors, size), dtype)
                self.optimizer_state = [self._state_vectors[k, ...] for k in range(n_vectors)]
                self._kept = backend.zeros(self.net.params.theta.shape if self.optimizer.average else (1,), dtype)
                # What a step moves: parameters, running statistics, the optimizer's vectors.
                self.state_buffers: list[Array] = [*state_of(self.net), *([self._state_vectors] if n_vectors else [])]
                self._remembered = Snapshot(backend, self.state_buffers, dtype)
                self._remembered_t = 0

    @property
    def optimizer_bytes(self) -> int:
        """What the optimizer's vectors take, with the copy of parameters and vectors that ``recover`` brings back."""
        kept = [self.net.params.theta, *self.optimizer_state, *([self._kept] if self.optimizer.average else [])]
        return sum(x.shape[0] for x in (*self.optimizer_state, *kept)) * np.dtype(self.net.dtype).itemsize

    @property
    def learning_rate(self) -> float:
        """The rate that the next step uses."""
        return self.optimizer.learning_rate * self.schedule.factor(self.t, self.total_steps)

    @locked
    def __call__(
        self,
        X: Array,
        Y: Array,
        weights: Array | None = None,
        *,
        weights_sum: float | None = None,
        micro_batch: int | None = None,
        reduce: Callable[[Array], None] | None = None,
    ) -> None:
        """One step. J of the batch, penalty included, is in ``self.value`` (1,) on the device.

        Parameters
        ----------
        X : (n_0, m)
        Y : (n_L, m), or (1, m) class labels
        weights : (1, m), optional
            Example weights; ``weights_sum`` is their sum, read from the device if left out.
        micro_batch : int, optional
            Examples per pass; the gradient is the same for any value, unless a layer is normalized.
        reduce : callable, optional
            Called on the flat gradient between backward and update (a sum over ranks).
        """
        self.gradient(X, Y, weights, weights_sum=weights_sum, micro_batch=micro_batch)
        if reduce is not None:
            reduce(self.net.params.grad)
        self.penalty()
        self.update()

    @locked
    def gradient(
        self,
        X: Array,
        Y: Array,
        weights: Array | None = None,
        *,
        weights_sum: float | None = None,
        micro_batch: int | None = None,
    ) -> None:
        """grad <- dJ/dtheta without penalty, value <- J without penalty, over the whole batch."""
        m = check_batch(self.net, X, Y, weights, micro_batch)
        self._part_sizes(m, micro_batch or m)  # raises before anything is changed
        X, Y, weights = columns_on_device(self.net, X, Y, weights)
        if weights is not None and weights_sum is None:
            weights_sum = float(self.net.backend.to_host(self.net.backend.xp.sum(weights)))
        with self.net.backend.activate():
            self.load(self._table, [Denominator.of(self.reduction, m, weights_sum)])
            kernels, table, values = self.net.kernels, self._table, self._values
            kernels.advance(self._counters, table, values, step_scalars=self._step_scalars, value=self.value)
            self._passes(X, Y, weights, micro_batch or m)

    @property
    def n_step_scalars(self) -> int:
        """How many scalars a step needs from the host: 1/D, penalty strengths, the optimizer's scalars."""
        return int(self._step_scalars.shape[0])

    @property
    def current_step_scalars(self) -> Array:
        """The scalars of the step that the device has begun last, on the device."""
        return self._step_scalars

    def load(self, table: Array, denominators: Sequence[Denominator], taken: int = 0) -> None:
        """table[k] <- the scalars of the k-th step from now, computed in float64; sets the device's counters.

        ``table`` is (len(denominators), n_step_scalars). ``taken`` of these steps have been taken already.
        """
        net, rows = self.net, [self.step_scalars(k - taken, D) for k, D in enumerate(denominators)]
        self.rewind(taken)
        with contextlib.nullcontext() if net.dtype == "float64" else np.errstate(over="ignore"):  # the step shows it
            net.backend.upload(rows, table, net.dtype)

    def step_scalars(self, k: int, D: Denominator) -> list[float]:
        """The scalars of the k-th step from now: 1/D, penalty strengths, the optimizer's scalars."""
        over = D.inverse if self.penalty_over == "examples" else 1.0
        rate = self.optimizer.learning_rate * self.schedule.factor(self.t + k, self.total_steps)
        own = self.groups.step_scalars(self.optimizer, self.t + k + 1, rate)
        return [D.inverse / self.net.members, self.l1 * over, self.l2 * over, *own]

    @property
    def scalars_key(self) -> tuple[Any, ...]:
        """Cache key: two steps with equal keys need the same scalars for equal k and D."""
        penalty, progress = (self.l1, self.l2, self.penalty_over), (self.t, self.total_steps)
        return (type(self), self.net.sizes, self.optimizer, self.schedule, *self.groups.rules, penalty, progress)

    def rewind(self, taken: int = 0) -> None:
        """Set the device's counters before the first batch of a pass, or before a later one."""
        self.net.backend.upload([taken - 1, self.t - 1], self._counters, "int64")

    @property
    def batches_begun(self) -> int:
        """Steps that the device has begun since ``rewind``; those before the last one have moved the parameters."""
        return int(self.net.backend.to_host(self._counters)[0]) + 1

    def program(
        self, table: Array, values: Array, batch: BatchSource, micro_batch: int | None, *, update: bool = True
    ) -> Program:
        """A step that touches only buffers: advance, gather, gradient, penalty and, with ``update``, clip, update."""

        def step() -> None:
            self.net.kernels.advance(self._counters, table, values, step_scalars=self._step_scalars, value=self.value)
            if batch.m:  # else the batch has fewer examples than there are ranks
                batch.gather(self._counters)
                self._passes(batch.X, batch.Y, batch.weights, micro_batch or batch.m, batch.first)
            if self.ranks.size > 1:
                self.net.kernels.all_reduce(self.ranks, self.net.params.grad, value=self.value, empty=not batch.m)
            self.penalty()
            if update:
                self._apply()

        return step

    def _passes(self, X: Array, Y: Array, weights: Array | None, size: int, first: int = 0) -> None:
        """Forward and backward over the micro-batches of a batch, or of its examples from ``first`` on; they add up."""
        end = 0
        for m in self._part_sizes(X.shape[1], size):
            part, end = slice(end, end + m), end + m
            w = None if weights is None else weights[:, part]
            self._micro_batch(X[:, part], Y[:, part], w, part.start, first)

    def _part_sizes(self, m: int, size: int) -> list[int]:
        """Examples of each micro-batch; with a normalized layer as even as they can be, and never 1."""
        normalized = any(self.net.batch_norm)
        if normalized and m < 2:
            problem = f"batch normalization needs at least 2 examples in a batch, got {m}"
            raise DataError(f"{problem}: pass more at a time, or leave batch_norm out")
        if normalized and size < 2:
            raise ConfigError("micro_batch must be at least 2 with batch_norm, which normalizes one example to 0")
        return part_sizes(m, size, even=normalized)

    def _workspace(self, m: int) -> Workspace:
        """The buffers for m examples; those of the last few numbers of examples are kept."""
        with self.net.backend.activate():
            return self._workspaces.of(m, lambda: self.net.workspace(m, step=self._counters[1:2]))

    def reserve(self, m: int, micro_batch: int | None) -> None:
        """Allocate the buffers for batches of m examples now, so that a lack of memory shows before the first step.

        They are kept until :meth:`release`, since a recorded program writes into them.
        """
        for part in set(self._part_sizes(m, micro_batch or m)):
            self._workspace(part)
            self._workspaces.reserved.add(part)

    @property
    def workspaces(self) -> list[Workspace]:
        """The buffers that are there, one for each number of examples."""
        return list(self._workspaces.made.values())

    @locked
    def release(self, *, scratch: bool = True) -> None:
        """Free all buffers whose size depends on the number of examples and, with ``scratch``, the kernels' scratch."""
        self._workspaces = Workspaces()
        kernels: Any = self.net.kernels
        if scratch and hasattr(kernels, "release"):  # a set with scratch buffers
            kernels.release()

    def _micro_batch(self, X: Array, Y: Array, weights: Array | None, start: int, first: int) -> None:
        net, m = self.net, X.shape[1]
        ws = self._workspace(m)
        ws.set_offset(first + start)
        ws.A[0], ws.weights = X, weights
        how: dict[str, Any] = {"form": self.delta, "one_over_m": self.one_over_m, "accumulate": start > 0}
        layer_loop.gradient(net, ws, Y, **how, inverse=self._inverse, value=self.value)

    @locked
    def penalty(self) -> None:
        """Add the penalty on the weights to the gradient and to the cost; once per step, after any reduce."""
        p, n = self.net.params, self.net.params.n_weights
        l1, l2 = self._l1 if self.l1 else None, self._l2 if self.l2 else None
        with self.net.backend.activate():
            self.net.kernels.penalty(p.theta[:n], p.grad[:n], l1=l1, l2=l2, value=self.value)

    @locked
    def update(self) -> None:
        """Clip, and take the optimizer's step with the gradient that is there; counts the step."""
        with self.net.backend.activate():
            self._apply()
        self.t += 1

    def _apply(self) -> None:
        p, kernels, factor = self.net.params, self.net.kernels, None
        if self.clip_norm is not None:
            kernels.global_norm(p.grad, self.clip_norm, norm=self.norm, factor=self._factor)
            factor = self._factor
        self.groups.update(kernels, self.optimizer, p, self.optimizer_state, scalars=self._scalars, factor=factor)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the network has the average of its parameters, if the optimizer keeps one and a step was taken."""
        theta, there = self.net.params.theta, self.optimizer.average and self.t
        with self.lock.held():
            if there:
                with self.net.backend.activate():
                    self._kept[...] = theta
                self.adopt_average()
            try:
                yield
            finally:
                if there:
                    with self.net.backend.activate():
                        theta[...] = self._kept

    @locked
    def adopt_average(self) -> None:
        """theta <- the average of the parameters, if the optimizer keeps one and a step was taken."""
        if self.optimizer.average and self.t:
            with self.net.backend.activate():
                self.net.params.theta[...] = self.optimizer_state[-1]

    def remember(self) -> None:
        """Keep what a step moves, for :meth:`recover`."""
        self._remembered.take()
        self._remembered_t = self.t

    @locked
    def recover(self) -> None:
        """Bring back what :meth:`remember` kept last: parameters, running statistics, the optimizer's state, ``t``."""
        with self.net.backend.activate():
            self._remembered.restore()
        self.t = self._remembered_t

    @locked
    def state_dict(self) -> State:
        """All that an exact resume needs: parameters, running statistics, the optimizer's vectors, ``t``, the settings.

        A tree of plain Python values and NumPy arrays by name (``state["parameters"]["W1"]`` (n_1, n_0)), all copies.
        """
        return step_state(self)

    @locked
    def load_state_dict(self, state: State, *, allow_change: bool = False) -> None:
        """Go on from what :meth:`state_dict` gave, on this device or another; nothing is touched if it does not fit.

        ``allow_change``: the settings may differ, as long as the tensors are of the same names, shapes and dtype.

        Raises
        ------
        ConfigError
            Names the setting that differs.
        CheckpointError
            Names what is missing in the state, or is not what it should be.
        """
        load_step_state(self, state, allow_change)

    def cost(self) -> float:
        """J of the last batch, read from the device."""
        return float(self.net.backend.to_host(self.value)[0])
