"""Does the replay see faults? Each function here is one, put into the reference kernels or the step by hand.

Every one must be found by ``support.replay``, and at the tensor where it enters, not somewhere downstream. Numbers in
the decorators are those of the list of faults that parity must find, 0 for those of this file alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.backends import Case
from support.plans import Plan
from support.replay import Replay
from support.trace import WRITTEN, traced

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.network.step import TrainingStep

HOST = Case("numpy", "reference")
STEPS = 3

EARLY = Plan(
    sizes=(9, 12, 12, 8, 3),
    activations=("relu", "tanh", "sigmoid"),
    loss="categorical_cross_entropy",
    optimizer={"name": "adam", "learning_rate": 0.01},
    m=20,
    training={"l2": 0.3},
)
LATE = replace(EARLY, training={"l2": 0.3, "one_over_m": "late"})
DROPOUT = replace(EARLY, dropout=(0.3, 0.0, 0.25))
MICRO = replace(EARLY, micro_batch=7)
CLIP = replace(EARLY, training={"clip_norm": 0.01})
LAYER = {(12, 9): 1, (12, 12): 2, (8, 12): 3, (3, 8): 4}


@dataclass(frozen=True)
class Fault:
    """``act`` gets the arguments of one kernel call, before or after it is made, or the whole step."""

    number: int
    act: Callable[[Any], None]
    at: str
    plan: Plan
    operation: str
    after: bool
    layer: int | None


FAULTS: dict[str, Fault] = {}


def fault(
    number: int, operation: str, at: str, *, layer: int | None = None, plan: Plan = EARLY, after: bool = False
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a fault of a kernel (or of the ``"step"``), of one layer or all, that must be found at ``at``."""

    def register(act: Callable[[Any], None]) -> Callable[[Any], None]:
        FAULTS[act.__name__] = Fault(number, act, at, plan, operation, after, layer)
        return act

    return register


class Faulty(ReferenceKernels):
    """The reference with one fault; ``memory`` is what the fault keeps from call to call."""

    def __init__(self, backend: Backend, fault: Fault) -> None:
        super().__init__(backend)
        self.fault, self.memory = fault, SimpleNamespace()

    def meddled(self, name: str, given: dict[str, Any]) -> bool:
        matrix = given.get("W", given.get("dW"))
        layer = None if matrix is None else LAYER[matrix.shape]
        return name == self.fault.operation and self.fault.layer in (None, layer)


def _meddling(name: str) -> Any:
    honest = getattr(ReferenceKernels, name)
    signature = inspect.signature(honest)

    @functools.wraps(honest)
    def call(self: Faulty, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs).arguments
        meddled = self.meddled(name, given)
        c = SimpleNamespace(**{**given, "memory": self.memory})
        if meddled and not self.fault.after:
            self.fault.act(c)
        honest(**{key: getattr(c, key) for key in given})
        if meddled and self.fault.after:
            self.fault.act(c)

    return call


for _name in WRITTEN:
    setattr(Faulty, _name, _meddling(_name))

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
    c.A[5] = c.A[4]


@fault(27, "dense", "Z1", layer=1)
def two_examples_swapped(c: Any) -> None:
    c.A_prev = c.A_prev[:, [1, 0, *range(2, c.A_prev.shape[1])]]


@fault(29, "dense", "Z3", layer=3)
def bit_of_a_weight_flipped(c: Any) -> None:
    c.W = c.W.copy()
    c.W.view(np.int32)[3, 5] ^= 1 << 12


def rounded_to(x: np.ndarray, bits: int) -> np.ndarray:
    """float32 with only so many bits of mantissa."""
    unit = np.float32(2.0) ** (np.frexp(x)[1] - 1 - bits)
    return (np.round(x / unit) * unit).astype(np.float32)


@fault(30, "dense", "Z2", layer=2)
def product_in_tf32(c: Any) -> None:
    c.W, c.A_prev = rounded_to(c.W, 10), rounded_to(c.A_prev, 10)


@fault(31, "dense_vjp_params", "dW2", layer=2)
def product_in_bf16(c: Any) -> None:
    c.dZ, c.A_prev = rounded_to(c.dZ, 7), rounded_to(c.A_prev, 7)


@fault(34, "dense", "A2", layer=2)
def approximate_tanh(c: Any) -> None:
    c.activation = replace(c.activation, forward_function=lambda xp, Z: rounded_to(np.tanh(Z), 11))


@fault(36, "dense", "A1", layer=1)
def leaky_in_forward_only(c: Any) -> None:
    c.activation = replace(c.activation, forward_function=lambda xp, Z: np.where(Z > 0, Z, np.float32(1e-3) * Z))


@fault(37, "dense", "A2", layer=2)
def sixty_four_ulp_too_large(c: Any) -> None:
    c.activation = replace(c.activation, forward_function=lambda xp, Z: np.tanh(Z) * np.float32(1 + 64 * 2.0**-23))


# -- output -----------------------------------------------------------------------------------------------------------


@fault(25, "output_delta", "value", after=True)
def sum_of_losses_for_their_mean(c: Any) -> None:
    c.value *= c.Z.shape[1]


@fault(26, "output_delta", "value")
def labels_rolled(c: Any) -> None:
    c.Y = np.roll(c.Y, 1, axis=1)


@fault(5, "output_delta", "dZ4", after=True)
def sign_of_dZ(c: Any) -> None:
    c.dZ *= -1


@fault(43, "output_delta", "value", plan=MICRO)
def ragged_micro_batch_weighted_equally(c: Any) -> None:
    c.inverse_denominator = np.full(1, 1.0 / (3 * c.Z.shape[1]), np.float32)


@fault(0, "output_delta", "dZ4")
def late_delta_in_an_early_step(c: Any) -> None:
    c.early = False


# -- backward ---------------------------------------------------------------------------------------------------------


@fault(7, "dense_vjp_input", "dZ1", layer=2)
def W_not_transposed_in_backward(c: Any) -> None:
    c.W = c.W.T


@fault(15, "dense_vjp_input", "dZ1", layer=2)
def wrong_cached_Z(c: Any) -> None:
    c.saved_prev = replace(c.saved_prev, Z=np.roll(c.saved_prev.Z, 1, axis=1))


def _with_vjp(c: Any, vjp: Callable[[Any, Any, Any, Any], Any]) -> None:
    c.activation_prev = replace(c.activation_prev, vjp_function=vjp)


@fault(16, "dense_vjp_input", "dZ2", layer=3)
def g_prime_missing(c: Any) -> None:
    _with_vjp(c, lambda xp, dA, Z, A: dA)


@fault(17, "dense_vjp_input", "dZ1", layer=2)
def relu_mask_from_dA(c: Any) -> None:
    _with_vjp(c, lambda xp, dA, Z, A: np.where(dA > 0, dA, 0))


@fault(18, "dense_vjp_input", "dZ2", layer=3)
def tanh_prime_from_Z(c: Any) -> None:
    _with_vjp(c, lambda xp, dA, Z, A: dA * (1 - Z * Z))


@fault(19, "dense_vjp_input", "dZ3", layer=4)
def sigmoid_prime_is_A(c: Any) -> None:
    _with_vjp(c, lambda xp, dA, Z, A: dA * A)


@fault(38, "dense_vjp_input", "dZ1", layer=2)
def relu_prime_is_1_at_0(c: Any) -> None:
    _with_vjp(c, lambda xp, dA, Z, A: np.where(Z >= 0, dA, 0))


@fault(0, "dense_vjp_input", "dZ1", layer=2, plan=DROPOUT)
def dropout_missing_in_backward(c: Any) -> None:
    c.dropout_prev = None


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
    c.scale = c.scale * c.scale


@fault(4, "dense_vjp_params", "dW2", layer=2, plan=LATE)
def one_over_m_minus_1(c: Any) -> None:
    c.scale = c.scale * np.float32(20 / 19)


@fault(9, "dense_vjp_params", "dW2", layer=2, after=True)
def dW_transposed(c: Any) -> None:
    c.dW[...] = c.dW.T.copy()


@fault(10, "dense_vjp_params", "dW3", layer=3)
def last_example_dropped(c: Any) -> None:
    c.dZ, c.A_prev = c.dZ[:, :-1], c.A_prev[:, :-1]


@fault(14, "dense_vjp_params", "dW3", layer=3)
def stale_A_in_dW(c: Any) -> None:
    now = c.A_prev.copy()
    c.A_prev = getattr(c.memory, "A_prev", c.A_prev)
    c.memory.A_prev = now


@fault(23, "dense_vjp_params", "dW2", layer=2, after=True)
def addition_lost_in_a_race(c: Any) -> None:
    c.dW[0, 3] -= c.dZ[0, 7] * c.A_prev[3, 7]


@fault(0, "dense_vjp_params", "dW2", layer=2, plan=MICRO)
def micro_batch_overwrites_the_gradient(c: Any) -> None:
    c.accumulate = False


# -- once per step ----------------------------------------------------------------------------------------------------


@fault(6, "update", "theta")
def sign_of_the_update(c: Any) -> None:
    c.scalars = c.scalars * np.array([-1, 1], np.float32)


@fault(28, "update", "theta")
def learning_rate_in_fp16(c: Any) -> None:
    c.scalars = c.scalars.astype(np.float16).astype(np.float32)


@fault(0, "update", "slot 0", plan=CLIP)
def clip_factor_not_applied(c: Any) -> None:
    c.factor = None


@fault(22, "step", "dZ3")
def W_updated_before_dA(step: TrainingStep) -> None:
    """The last layer's weights move as soon as their gradient is there."""
    kernels, honest = step.net.kernels, step.net.kernels.dense_vjp_params

    def eager(self: Any, dZ: Any, A_prev: Any, *, scale: Any, dW: Any, accumulate: bool) -> None:
        honest(dZ, A_prev, scale=scale, dW=dW, accumulate=accumulate)
        if dW.shape == (3, 8):
            step.net.params.W[4][...] -= np.float32(0.01) * dW

    kernels.dense_vjp_params = MethodType(eager, kernels)  # type: ignore[method-assign]


@fault(39, "step", "step numbers")
def adams_bias_correction_off_by_one(step: TrainingStep) -> None:
    object.__setattr__(
        step.optimizer, "scalars", lambda t, rate: type(step.optimizer).scalars(step.optimizer, t + 1, rate)
    )


@fault(40, "step", "db applied")
def l2_on_biases(step: TrainingStep) -> None:
    step.net.params.b[2][...] = 0.1
    step.net.params.n_weights, honest = step.net.params.theta.shape[0], step.net.params.n_weights
    update = step.update

    def repaired(self: TrainingStep) -> None:
        self.net.params.n_weights = honest
        update()

    step.update = MethodType(repaired, step)  # type: ignore[method-assign]


@fault(0, "step", "1/D")
def denominator_of_the_first_micro_batch(step: TrainingStep) -> None:
    honest = step.load
    step.load = lambda table, ds: honest(table, [type(d)(7.0) for d in ds])  # type: ignore[method-assign]


# -- the check --------------------------------------------------------------------------------------------------------


def first_out_of_bounds(plan: Plan, fault: Fault | None) -> tuple[str | None, float]:
    """The tensor at which the replay stops within a few steps, and its ratio of error to bound."""
    step = plan.step(HOST)
    recipe = plan.recipe(step)
    rng = np.random.default_rng(1)
    for b in step.net.params.b[2:]:
        b[...] = rng.standard_normal(b.shape)
    step.net.params.b[1][::2] = 0.5
    if fault is not None and fault.operation == "step":
        fault.act(step)
    elif fault is not None:
        step.net.kernels = Faulty(HOST.backend, fault)  # type: ignore[assignment]
    replay = Replay(recipe, HOST.bounds("float32"))
    for t in range(STEPS):
        X, Y, w = plan.batch(t)
        X[:, 3] = 0.0  # pre-activations that are exactly 0, where biases are
        verdict = replay(traced(step, X, Y, w, micro_batch=plan.micro_batch), t, 0.01, X, Y, w)
        if verdict.first is not None:
            return verdict.first, verdict.ratios[verdict.first]
    return None, 0.0


@pytest.mark.parametrize("plan", [EARLY, LATE, DROPOUT, MICRO, CLIP], ids=["early", "late", "dropout", "micro", "clip"])
def test_without_a_fault_nothing_is_found(plan: Plan) -> None:
    assert first_out_of_bounds(plan, None) == (None, 0.0)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_where_it_enters(name: str) -> None:
    found, r = first_out_of_bounds(FAULTS[name].plan, FAULTS[name])
    print(f"{FAULTS[name].number:2d} {name}: {found}, error/bound {r:.3g}")
    assert found == FAULTS[name].at
