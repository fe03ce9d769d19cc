"""The faults that parity must find, each a function: put into the reference kernels, or into the step by a hook.

``act`` of a kernel's fault gets the arguments of one call as a namespace, before or after the honest kernel runs; a
hook's is a context manager. ``at`` is the tensor where the fault enters. Numbers are those of the list of faults.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep

LAYERS = {(6, 5): 1, (6, 6): 2, (4, 6): 3, (3, 4): 4}
OPERATIONS = (
    "dense",
    "dense_vjp_input",
    "dense_vjp_params",
    "output_delta",
    "penalty",
    "global_norm",
    "update",
    "gather",
)


@dataclass(frozen=True)
class Plan:
    """The network that a fault is put into: relu, tanh, sigmoid and a softmax over three classes."""

    m: int = 20
    dropout: tuple[float, ...] = (0.0, 0.0, 0.0)
    settings: dict[str, Any] = field(default_factory=lambda: {"l2": 0.3})
    micro_batch: int | None = None
    nan: bool = False

    def net(self, device: Backend | str = "numpy", dtype: str = "float32") -> DenseNet:
        """Random biases, but for a few that are 0; ``nan``: one weight is not a number."""
        net = DenseNet(
            [5, 6, 6, 4, 3],
            activation=["relu", "tanh", "sigmoid"],
            loss="categorical_cross_entropy",
            dropout=list(self.dropout),
            dtype=dtype,
            seed=11,
            device=device,
            kernels="reference",
        )
        named, rng = net.parameters(), np.random.default_rng(1)
        for name, value in named.items():
            if name.startswith("b"):
                value[...] = rng.standard_normal(value.shape) * 0.5
        named["b1"][::2] = 0.0
        if self.nan:
            named["W1"][2, 1] = np.nan
        net.set_parameters(named)
        return net

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """X with a row of zeros, whose pre-activations are the biases, 0 among them; labels."""
        rng = np.random.default_rng(2)
        X = rng.standard_normal((self.m, 5))
        X[3] = 0.0
        return X, rng.integers(0, 3, self.m)


EARLY = Plan()
LATE = Plan(settings={"l2": 0.3, "one_over_m": "late"})
MICRO = Plan(micro_batch=7)
DROPOUT = Plan(dropout=(0.3, 0.0, 0.25))
NAN = Plan(nan=True)


@dataclass(frozen=True)
class Fault:
    """``operation`` is a kernel's name, or ``"hook"``."""

    number: int
    name: str
    act: Callable[..., Any]
    at: str
    plan: Plan
    operation: str
    layer: int | None
    after: bool


FAULTS: dict[str, Fault] = {}


def fault(
    number: int, operation: str, at: str, *, layer: int | None = None, plan: Plan = EARLY, after: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a fault of one kernel, in one layer or all, that enters at the tensor ``at``."""

    def register(act: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS[act.__name__] = Fault(number, act.__name__, act, at, plan, operation, layer, after)
        return act

    return register


class Faulty(ReferenceKernels):
    """The reference with one fault; ``memory`` is what the fault keeps from call to call."""

    def __init__(self, backend: Backend, fault: Fault) -> None:
        super().__init__(backend)
        self.fault, self.memory = fault, SimpleNamespace()

    def meddles(self, name: str, given: dict[str, Any]) -> bool:
        matrix = given.get("W", given.get("dW"))
        layer = None if matrix is None else LAYERS.get(matrix.shape)
        return name == self.fault.operation and self.fault.layer in (None, layer)


def _meddling(name: str) -> Any:
    honest = getattr(ReferenceKernels, name)
    signature = inspect.signature(honest)

    @functools.wraps(honest)
    def call(self: Faulty, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs).arguments
        meddles = self.meddles(name, given)
        c = SimpleNamespace(**{**given, "memory": self.memory})
        if meddles and not self.fault.after:
            self.fault.act(c)
        honest(**{key: getattr(c, key) for key in given})
        if meddles and self.fault.after:
            self.fault.act(c)

    return call


for _name in OPERATIONS:
    setattr(Faulty, _name, _meddling(_name))


class FaultyBackend(Backend):
    """NumPy, where every kernel set has the fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__("numpy", np)
        self.fault = fault

    def kernels(self, kind: str = "auto") -> Any:
        return Faulty(self, self.fault)


@contextlib.contextmanager
def seeded(fault: Fault) -> Iterator[Backend | str]:
    """The device to use while the fault is there."""
    if fault.operation != "hook":
        yield FaultyBackend(fault)
        return
    with fault.act():
        yield "numpy"


@contextlib.contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of a class, changed meanwhile."""
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


# -- data -------------------------------------------------------------------------------------------------------------


@fault(26, "gather", "Y", after=True)
def labels_rolled(c: Any) -> None:
    if c.out.dtype == np.int64:
        c.out[...] = np.roll(c.out, 1, axis=0)


@fault(27, "gather", "X", after=True)
def two_rows_swapped(c: Any) -> None:
    if c.out.dtype != np.int64:
        c.out[[0, 1]] = c.out[[1, 0]]


# -- forward ----------------------------------------------------------------------------------------------------------


@fault(8, "dense", "Z2", layer=2)
def transposed_W_in_forward(c: Any) -> None:
    c.W = c.W.T


@fault(11, "dense", "Z3", layer=3)
def last_term_of_the_product_dropped(c: Any) -> None:
    c.W = np.concatenate([c.W[:, :-1], np.zeros_like(c.W[:, -1:])], axis=1)


@fault(12, "dense", "Z2", layer=2)
def edge_of_the_tile_left_out(c: Any) -> None:
    keep = np.arange(c.W.shape[0])[:, None] < c.W.shape[0] - 1
    c.W, c.b = c.W * keep, c.b * keep


@fault(20, "dense", "Z3", layer=3)
def bias_missing(c: Any) -> None:
    c.b = np.zeros_like(c.b)


@fault(21, "dense", "Z1", layer=1)
def bias_twice(c: Any) -> None:
    c.b = 2 * c.b


@fault(24, "dense", "A3", layer=3, after=True)
def stale_row(c: Any) -> None:
    now = c.A[1].copy()
    c.A[1] = getattr(c.memory, "row", now) if getattr(c.memory, "row", now).shape == now.shape else now
    c.memory.row = now


@fault(29, "dense", "Z3", layer=3)
def bit_of_a_weight_flipped(c: Any) -> None:
    c.W = c.W.copy()
    bits = c.W.view(np.int32 if c.W.dtype == np.float32 else np.int64)
    bits[3, 5] ^= 1 << (12 if c.W.dtype == np.float32 else 41)


def rounded_to(x: np.ndarray, bits: int) -> np.ndarray:
    """With only so many bits of mantissa."""
    unit = np.ldexp(1.0, np.frexp(x)[1] - 1 - bits)  # float64: the unit of a tiny number is not even subnormal
    return (np.round(x / unit) * unit).astype(x.dtype)


@fault(30, "dense", "Z2", layer=2)
def product_in_tf32(c: Any) -> None:
    c.W, c.A_prev = rounded_to(c.W, 10), rounded_to(c.A_prev, 10)


@fault(32, "dense", "Z3", layer=3, after=True)
def sum_in_fp16(c: Any) -> None:
    total = np.zeros(c.A.shape, np.float16)
    for k in range(c.W.shape[1]):
        total = (total + c.W[:, k : k + 1] * c.A_prev[k : k + 1]).astype(np.float16)
    c.saved.Z = (total + c.b).astype(c.A.dtype)
    c.saved.G = c.activation.forward(np, c.saved.Z)
    c.A[...] = c.saved.G


@fault(45, "dense", "Z2", layer=2)
def memory_order_misread(c: Any) -> None:
    c.A_prev = np.ascontiguousarray(c.A_prev.T).reshape(c.A_prev.shape)


def _forward(c: Any, function: Callable[[np.ndarray], np.ndarray]) -> None:
    if c.activation.name == "identity":  # a probe's layer has no activation that could go wrong
        return
    c.activation = replace(c.activation, forward_function=lambda xp, Z, **parameters: function(Z).astype(Z.dtype))


@fault(33, "dense", "G3", layer=3)
def fast_exp(c: Any) -> None:
    _forward(c, lambda Z: 1 / (1 + np.exp(-Z) * Z.dtype.type(1 + 2e-6)))


@fault(34, "dense", "G2", layer=2)
def approximate_tanh(c: Any) -> None:
    _forward(c, lambda Z: rounded_to(np.tanh(Z), 11))


@fault(35, "dense", "G2", layer=2)
def tanh_off_by_ten_ulp(c: Any) -> None:
    def function(Z: np.ndarray) -> np.ndarray:
        A = np.tanh(Z)
        return A + 10 * np.spacing(np.abs(A)) * np.sign(A)

    _forward(c, function)


@fault(36, "dense", "G1", layer=1)
def leaky_in_forward_only(c: Any) -> None:
    _forward(c, lambda Z: np.where(Z > 0, Z, 1e-3 * Z))


@fault(37, "dense", "G2", layer=2)
def scaled_by_64_ulp(c: Any) -> None:
    _forward(c, lambda Z: np.tanh(Z) * (1 + 64 * np.finfo(Z.dtype).eps))


@fault(44, "dense", "G1", layer=1, plan=NAN)
def nan_hidden_by_maximum(c: Any) -> None:
    _forward(c, lambda Z: np.fmax(Z, 0))


# -- output -----------------------------------------------------------------------------------------------------------


@fault(25, "output_delta", "value", after=True)
def sum_of_losses_for_their_mean(c: Any) -> None:
    c.value *= c.Z.shape[1]


@fault(5, "output_delta", "dZ4", after=True)
def sign_of_dZ(c: Any) -> None:
    c.dZ *= -1
    c.db *= -1


@fault(43, "output_delta", "dZ4", plan=MICRO)
def ragged_micro_batch_weighted_equally(c: Any) -> None:
    """Each of the batch's three parts is a mean of its own, and a third of the whole."""
    if c.Z.shape[1] in (7, 6):
        c.inverse_denominator = np.full(1, 1 / (3 * c.Z.shape[1]), c.Z.dtype)


# -- backward ---------------------------------------------------------------------------------------------------------


@fault(7, "dense_vjp_input", "dZ1", layer=2)
def W_not_transposed_in_backward(c: Any) -> None:
    c.W = c.W.T


@fault(15, "dense_vjp_input", "dZ1", layer=2)
def wrong_cached_Z(c: Any) -> None:
    c.saved_prev = replace(c.saved_prev, Z=np.roll(c.saved_prev.Z, 1, axis=1))


def _backward(c: Any, vjp: Callable[[Any, Any, Any], Any]) -> None:
    if c.activation_prev.name == "identity":
        return
    c.activation_prev = replace(c.activation_prev, vjp_function=lambda xp, dA, Z, A, **parameters: vjp(dA, Z, A))


@fault(16, "dense_vjp_input", "dZ2", layer=3)
def g_prime_missing(c: Any) -> None:
    _backward(c, lambda dA, Z, A: dA)


@fault(17, "dense_vjp_input", "dZ1", layer=2)
def relu_mask_from_dA(c: Any) -> None:
    _backward(c, lambda dA, Z, A: np.where(dA > 0, dA, 0))


@fault(18, "dense_vjp_input", "dZ2", layer=3)
def tanh_prime_from_Z(c: Any) -> None:
    _backward(c, lambda dA, Z, A: dA * (1 - Z * Z))


@fault(19, "dense_vjp_input", "dZ3", layer=4)
def sigmoid_prime_is_A(c: Any) -> None:
    _backward(c, lambda dA, Z, A: dA * A)


@fault(38, "dense_vjp_input", "dZ1", layer=2)
def relu_prime_is_1_at_0(c: Any) -> None:
    _backward(c, lambda dA, Z, A: np.where(Z >= 0, dA, 0))


@fault(13, "dense_vjp_input", "db2", layer=3, after=True)
def db_over_half_the_batch(c: Any) -> None:
    c.db_prev[...] = c.dZ_prev[:, ::2].sum(axis=1, keepdims=True)


@fault(2, "dense_vjp_input", "db2", layer=3, plan=LATE)
def one_over_m_missing_in_db(c: Any) -> None:
    c.scale = None


@fault(1, "dense_vjp_params", "dW3", layer=3, plan=LATE)
def one_over_m_missing_in_dW(c: Any) -> None:
    c.scale = None


@fault(3, "dense_vjp_params", "dW3", layer=3, plan=LATE)
def one_over_m_twice(c: Any) -> None:
    c.scale = None if c.scale is None else c.scale * c.scale


@fault(4, "dense_vjp_params", "dW2", layer=2, plan=LATE)
def one_over_m_minus_1(c: Any) -> None:
    m = c.dZ.shape[1]
    c.scale = None if c.scale is None or m < 2 else c.scale * c.dZ.dtype.type(m / (m - 1))


@fault(9, "dense_vjp_params", "dW2", layer=2, after=True)
def dW_transposed(c: Any) -> None:
    c.dW[...] = c.dW.T.copy()


@fault(10, "dense_vjp_params", "dW3", layer=3)
def last_example_dropped(c: Any) -> None:
    c.dZ, c.A_prev = c.dZ[:, :-1], c.A_prev[:, :-1]


@fault(14, "dense_vjp_params", "dW3", layer=3)
def stale_A_in_dW(c: Any) -> None:
    now = c.A_prev.copy()
    before = getattr(c.memory, "A_prev", now)
    c.A_prev = before if before.shape == now.shape else now
    c.memory.A_prev = now


@fault(23, "dense_vjp_params", "dW2", layer=2, after=True)
def addition_lost_in_a_race(c: Any) -> None:
    terms = c.dZ[0] * c.A_prev[3]
    c.dW[0, 3] -= terms[np.argmax(np.abs(terms))]


@fault(31, "dense_vjp_params", "dW2", layer=2)
def product_in_bf16(c: Any) -> None:
    c.dZ, c.A_prev = rounded_to(c.dZ, 7), rounded_to(c.A_prev, 7)


@fault(41, "dense_vjp_params", "dW3", layer=3)
def read_before_it_is_written(c: Any) -> None:
    """The last row of dZ has not arrived yet: what the buffer held before is read."""
    now, last = c.dZ.copy(), c.dZ.copy()
    before = getattr(c.memory, "dZ", now)
    if before.shape == now.shape:
        last[-1] = before[-1]
    c.memory.dZ, c.dZ = now, last


# -- once per step ----------------------------------------------------------------------------------------------------


@fault(6, "update", "theta")
def sign_of_the_update(c: Any) -> None:
    c.scalars = c.scalars * np.array([-1, 1], c.scalars.dtype)[: c.scalars.shape[0]]


@fault(28, "update", "theta")
def learning_rate_in_fp16(c: Any) -> None:
    c.scalars = c.scalars.astype(np.float16).astype(c.scalars.dtype)


@fault(22, "hook", "dZ3")
@contextlib.contextmanager
def W_updated_before_dA() -> Iterator[None]:
    """Weights move as soon as their gradient is there."""
    honest = ReferenceKernels.dense_vjp_params

    def eager(self: Any, dZ: Any, A_prev: Any, *, scale: Any, dW: Any, accumulate: bool) -> None:
        honest(self, dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)
        W = getattr(self, "W4", None)
        if dW.shape == (3, 4) and W is not None:
            W[...] -= dW * dW.dtype.type(0.01)

    def noting(self: Any, W: Any, *args: Any, **kwargs: Any) -> None:
        if W.shape == (3, 4):
            self.W4 = W
        dense(self, W, *args, **kwargs)

    dense = ReferenceKernels.dense
    functools.update_wrapper(noting, dense)
    with patched(ReferenceKernels, "dense_vjp_params", eager), patched(ReferenceKernels, "dense", noting):
        yield


@fault(39, "hook", "step numbers")
@contextlib.contextmanager
def adams_bias_correction_off_by_one() -> Iterator[None]:
    from backprop_gpu.maths.optimizers import Adam

    honest = Adam.scalars
    with patched(Adam, "scalars", lambda self, t, rate: honest(self, t + 1, rate)):
        yield


@fault(40, "hook", "db applied")
@contextlib.contextmanager
def l2_on_biases() -> Iterator[None]:
    def penalty(self: TrainingStep) -> None:
        p = self.net.params
        self.net.kernels.penalty(p.theta, p.grad, l1=None, l2=self._l2 if self.l2 else None, value=self.value)

    with patched(TrainingStep, "penalty", penalty):
        yield


@fault(42, "hook", "mask1", plan=DROPOUT)
@contextlib.contextmanager
def generator_not_restored() -> Iterator[None]:
    """The count of steps, which dropout's masks depend on, starts again at every step."""
    honest = TrainingStep.load

    def load(self: TrainingStep, table: Any, denominators: Any) -> None:
        honest(self, table, denominators)
        self._counters[...] = -1

    with patched(TrainingStep, "load", load):
        yield
