"""More faults, of the kinds that are told from each other by a number alone; each with what must be said of it.

They are put in as those of ``faults`` are. ``said`` is the part of the cause that tells the kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from parity.faults import DROPOUT, EARLY, MICRO, Fault, Plan, patched, rounded_to

from backprop_gpu.maths.activations import get_activation
from backprop_gpu.maths.optimizers import Adam
from backprop_gpu.network.step import TrainingStep

CLIP = Plan(settings={"l2": 0.3, "clip_norm": 0.05})
PLAIN = Plan(settings={})
DECAY = Plan(settings={"optimizer": {"name": "adamw", "weight_decay": 0.5}})
WEIGHTED = Plan(settings={"weights": True})


@dataclass(frozen=True)
class Diagnosed:
    """A fault, and what must be said of it."""

    fault: Fault
    said: str


DIAGNOSED: dict[str, Diagnosed] = {}


def fault(
    operation: str, at: str, said: str, *, layer: int | None = None, plan: Plan = EARLY, after: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a fault, as ``faults.fault`` does."""

    def register(act: Callable[..., Any]) -> Callable[..., Any]:
        number = 46 + len(DIAGNOSED)
        DIAGNOSED[act.__name__] = Diagnosed(Fault(number, act.__name__, act, at, plan, operation, layer, after), said)
        return act

    return register


# -- memory -----------------------------------------------------------------------------------------------------------


@fault("dense_vjp_input", "dZ2", "entry [0, 0] alone is wrong: 0 for ", layer=3, after=True)
def written_past_the_end(c: Any) -> None:
    c.dZ_prev[0, 0] = 0.0


@fault("dense_vjp_input", "dZ1", "entry [5, 19] alone is wrong: 7 for ", layer=2, after=True)
def written_past_the_end_of_what_is_before(c: Any) -> None:
    c.dZ_prev[-1, -1] = 7.0


@fault("dense", "A3", "3 entries alone are wrong: [0, 4] is 0 for ", layer=3, after=True)
def cleared_by_another(c: Any) -> None:
    c.A[0, 4:7] = 0.0


@fault("dense", "A2", "column 4 is a copy of column 3", layer=2, after=True)
def an_example_computed_twice(c: Any) -> None:
    c.A[:, 4] = c.A[:, 3]


@fault("dense_vjp_params", "dW2", "row 2 is a copy of row 1", layer=2, after=True)
def a_row_written_twice(c: Any) -> None:
    c.dW[2] = c.dW[1]


@fault("dense", "A3", "columns are in reverse order", layer=3, after=True)
def examples_in_reverse(c: Any) -> None:
    c.A[...] = c.A[:, ::-1].copy()


@fault("dense_vjp_input", "dZ2", "4 of 20 columns are at other places", layer=3, after=True)
def examples_exchanged(c: Any) -> None:
    c.dZ_prev[:, [2, 5, 7, 11]] = c.dZ_prev[:, [11, 2, 5, 7]]


@fault("dense_vjp_params", "dW3", "1 entries are NaN or infinite", layer=3, after=True)
def one_entry_overflows(c: Any) -> None:
    c.dW[1, 2] = np.inf


@fault("dense_vjp_params", "dW1", "what the micro-batches before it left is missing", layer=1, plan=MICRO)
def micro_batches_overwrite_each_other(c: Any) -> None:
    c.accumulate = False


@fault("dense_vjp_input", "db2", "what the micro-batches before it left is missing", layer=3, plan=MICRO)
def biases_of_micro_batches_overwritten(c: Any) -> None:
    c.accumulate = False


@fault("dense_vjp_params", "dW2", "the right operand is that of the step before", layer=2)
def activations_of_the_step_before(c: Any) -> None:
    now = c.A_prev.copy()
    c.A_prev = getattr(c.memory, "A_prev", now)
    c.memory.A_prev = now


@fault("dense_vjp_input", "dZ3", "the left operand is another than was recorded", layer=4)
def weights_moved_a_little_too_early(c: Any) -> None:
    c.W = c.W + np.float32(0.01) * np.outer(np.arange(c.W.shape[0]), np.ones(c.W.shape[1])).astype(c.W.dtype)


# -- sums -------------------------------------------------------------------------------------------------------------


def with_example(c: Any, k: int, times: float) -> None:
    factor = np.ones(c.dZ.shape[1], c.dZ.dtype)
    factor[k] = times
    c.dZ = c.dZ * factor


@fault("dense_vjp_params", "dW3", "example 3 of 20 is counted twice in every sum", layer=3)
def an_example_counted_twice(c: Any) -> None:
    with_example(c, 3, 2.0)


@fault("dense_vjp_params", "dW2", "example 7 of 20 is missing in every sum", layer=2)
def an_example_left_out(c: Any) -> None:
    with_example(c, 7, 0.0)


@fault("dense_vjp_input", "db2", "example 3 of 20 is counted twice", layer=3, after=True)
def an_example_counted_twice_in_db(c: Any) -> None:
    c.db_prev[...] += c.dZ_prev[:, 3:4]


@fault("dense_vjp_input", "db3", "example 5 of 20 is missing", layer=4, after=True)
def an_example_left_out_of_db(c: Any) -> None:
    c.db_prev[...] -= c.dZ_prev[:, 5:6]


@fault("output_delta", "db4", "the sum is over the first half alone", after=True)
def db_over_the_first_half(c: Any) -> None:
    c.db[...] = c.dZ[:, : c.dZ.shape[1] // 2].sum(axis=1, keepdims=True)


def one_hot(c: Any) -> np.ndarray:
    """The targets as columns: a probe's are already."""
    return np.eye(c.Z.shape[0], dtype=c.Z.dtype)[:, c.Y[0]] if c.Y.dtype.kind == "i" else c.Y


def losses(c: Any) -> np.ndarray:
    return c.loss.value(np, c.Z, one_hot(c))[0]


@fault("output_delta", "value", "example 3 of 20 is counted twice", after=True)
def a_loss_counted_twice(c: Any) -> None:
    c.value += c.inverse_denominator * losses(c)[3]


@fault("output_delta", "value", "example 19 of 20 is missing", after=True)
def the_last_loss_left_out(c: Any) -> None:
    c.value -= c.inverse_denominator * losses(c)[-1]


@fault("output_delta", "value", "the 1/m is applied twice", after=True)
def cost_divided_twice(c: Any) -> None:
    c.value *= c.inverse_denominator


@fault("output_delta", "value", "the sign is turned", after=True)
def a_gain_for_a_cost(c: Any) -> None:
    c.value *= -1


@fault("dense", "Z3", "term 2 of 6 is counted twice in every sum", layer=3)
def a_term_counted_twice(c: Any) -> None:
    c.W = c.W * np.where(np.arange(c.W.shape[1]) == 2, 2, 1).astype(c.W.dtype)


# -- biases and activations -------------------------------------------------------------------------------------------


@fault("dense", "Z2", "the bias is subtracted", layer=2)
def bias_subtracted(c: Any) -> None:
    c.b = -c.b


@fault("dense", "Z3", "the bias is that of another unit: rolled by 1", layer=3)
def bias_of_another_unit(c: Any) -> None:
    c.b = np.roll(c.b, 1, axis=0)


def other_activation(name: str) -> Callable[[Any], None]:
    def act(c: Any) -> None:
        if c.activation.name != "identity":
            c.activation = replace(get_activation(name), name=c.activation.name)

    return act


@fault("dense", "G2", "g is missing: it is Z", layer=2)
def activation_left_out(c: Any) -> None:
    other_activation("identity")(c)


@fault("dense", "G2", "it is relu of Z", layer=2)
def relu_for_tanh(c: Any) -> None:
    other_activation("relu")(c)


@fault("dense", "G3", "it is tanh of Z", layer=3)
def tanh_for_sigmoid(c: Any) -> None:
    other_activation("tanh")(c)


@fault("dense", "G3", "clamped to at most 0.6", layer=3)
def sigmoid_clamped(c: Any) -> None:
    if c.activation.name != "identity":
        honest = c.activation
        c.activation = replace(
            honest,
            forward_function=lambda xp, Z, **p: np.minimum(honest.forward(xp, Z), np.float32(0.6)).astype(Z.dtype),
        )


def derivative(c: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
    honest = c.activation_prev
    if honest.name != "identity":

        def vjp(xp: Any, dA: Any, Z: Any, A: Any, **parameters: Any) -> Any:
            return dA * change(honest.vjp(xp, np.ones_like(dA), Z, A)).astype(dA.dtype)

        c.activation_prev = replace(honest, vjp_function=vjp)


@fault("dense_vjp_input", "dZ2", "g' is clamped to at least 0.5", layer=3)
def derivative_clamped_below(c: Any) -> None:
    derivative(c, lambda d: np.maximum(d, 0.5))


@fault("dense_vjp_input", "dZ3", "g' is clamped to at most 0.2", layer=4)
def derivative_clamped_above(c: Any) -> None:
    derivative(c, lambda d: np.minimum(d, 0.2))


@fault("dense_vjp_input", "dZ2", "g' is applied twice", layer=3)
def derivative_twice(c: Any) -> None:
    derivative(c, lambda d: d * d)


@fault("dense", "A1", "the mask is applied without its scale 1/(1 - 0.3)", layer=1, plan=DROPOUT, after=True)
def dropout_not_scaled(c: Any) -> None:
    c.A[...] = np.where(c.saved.mask, c.saved.G, 0.0)


@fault("dense", "A1", "the mask is inverted", layer=1, plan=DROPOUT, after=True)
def dropout_mask_inverted(c: Any) -> None:
    c.A[...] = np.where(c.saved.mask, 0.0, c.saved.G / np.float32(0.7))


@fault("dense_vjp_input", "dZ1", "the dropout mask is not applied", layer=2, plan=DROPOUT)
def dropout_forgotten_in_backward(c: Any) -> None:
    if c.dropout_prev is not None:
        c.saved_prev = replace(c.saved_prev, mask=np.ones_like(c.saved_prev.mask))


# -- the loss ---------------------------------------------------------------------------------------------------------


@fault("output_delta", "dZ4", "the targets are not subtracted", after=True)
def targets_not_subtracted(c: Any) -> None:
    c.dZ += one_hot(c) * c.inverse_denominator


@fault("output_delta", "dZ4", "the labels are those of class + 1")
def labels_off_by_one_class(c: Any) -> None:
    c.Y = (c.Y + 1) % max(c.Z.shape[0], 2)


@fault("output_delta", "dZ4", "the labels are those of the examples rolled by 1")
def labels_of_other_examples(c: Any) -> None:
    c.Y = np.roll(c.Y, 1, axis=1)


@fault("output_delta", "dZ4", "(got/want 20)")
def late_delta_in_an_early_step(c: Any) -> None:
    c.early = False


@fault("hook", "1/D", "(got/want 2.85714)", plan=MICRO)
@contextlib.contextmanager
def denominator_of_the_first_micro_batch() -> Iterator[None]:
    honest = TrainingStep.load

    def load(self: TrainingStep, table: Any, denominators: Any) -> None:
        honest(self, table, [type(d)(7.0) for d in denominators])

    with patched(TrainingStep, "load", load):
        yield


@fault("output_delta", "dZ4", "the weights of the examples are not applied", plan=WEIGHTED)
def weights_not_applied(c: Any) -> None:
    c.weights = None


@fault("output_delta", "dZ4", "the weights of the examples are applied twice", plan=WEIGHTED)
def weights_applied_twice(c: Any) -> None:
    c.weights = c.weights * c.weights


# -- once per step ----------------------------------------------------------------------------------------------------


def l2_of(c: Any) -> Any:
    """Its strength: a probe asks for l1 alone."""
    return 0.0 if c.l2 is None else c.l2


@fault("penalty", "dW+penalty", "the penalty is missing", after=True)
def penalty_missing(c: Any) -> None:
    c.grad -= l2_of(c) * c.theta


@fault("penalty", "dW+penalty", "the penalty is taken 2 times", after=True)
def penalty_twice(c: Any) -> None:
    c.grad += l2_of(c) * c.theta


@fault("penalty", "dW+penalty", "the penalty is taken -1 times", after=True)
def penalty_of_the_other_sign(c: Any) -> None:
    c.grad -= 2 * l2_of(c) * c.theta


@fault("penalty", "J", "the penalty is missing", after=True)
def penalty_missing_in_the_cost(c: Any) -> None:
    c.value -= 0.5 * l2_of(c) * np.sum(c.theta * c.theta)


@fault("penalty", "J", "the penalty is taken 2 times", after=True)
def penalty_without_its_half(c: Any) -> None:
    c.value += 0.5 * l2_of(c) * np.sum(c.theta * c.theta)


@fault("global_norm", "norm", "the square of it", plan=CLIP, after=True)
def norm_without_its_root(c: Any) -> None:
    c.norm *= c.norm


@fault("global_norm", "norm", "the norm of the weights' part alone", plan=CLIP, after=True)
def norm_without_the_biases(c: Any) -> None:
    weights = sum(n * 64 for n in (1, 1, 1, 1))  # four matrices, each in a block of its own
    c.norm[...] = np.linalg.norm(c.grad[:weights])


@fault("global_norm", "clip factor", "1: nothing is clipped", plan=CLIP, after=True)
def nothing_clipped(c: Any) -> None:
    c.factor[...] = 1.0


@fault("update", "state 0", "", plan=CLIP)
def clip_factor_not_applied(c: Any) -> None:
    c.factor = None


@fault("update", "state 0", "it has not moved")
def first_moment_not_moved(c: Any) -> None:
    c.state = [c.state[0].copy(), *c.state[1:]]


@fault("update", "theta", "of the step that was taken, all 0", plan=PLAIN)
def nothing_updated(c: Any) -> None:
    c.scalars = c.scalars * np.array([0, 1], c.scalars.dtype)


@fault("update", "theta", "of the step that was taken, doubled", plan=PLAIN)
def updated_twice(c: Any) -> None:
    c.scalars = c.scalars * np.array([2, 1], c.scalars.dtype)


def of_adam(**changes: Any) -> Callable[[Any], None]:
    def act(c: Any) -> None:
        c.optimizer = replace(c.optimizer, **changes)

    return act


@fault("update", "state 0", "the old state's share is 0.5, not 0.9")
def other_beta1(c: Any) -> None:
    of_adam(beta1=0.5)(c)


@fault("update", "state 1", "the old state's share is 0.9, not 0.999")
def other_beta2(c: Any) -> None:
    of_adam(beta2=0.9)(c)


@fault("update", "theta", "epsilon is 0.001, not 1e-08")
def other_epsilon(c: Any) -> None:
    of_adam(epsilon=1e-3)(c)


@fault("hook", "theta", "epsilon stands inside the root")
@contextlib.contextmanager
def epsilon_inside_the_root() -> Iterator[None]:
    def apply(self: Adam, xp: Any, theta: Any, grad: Any, state: Any, scalars: Any, *, decay: bool) -> Any:
        (step, c), (m, v) = scalars, self._moments(grad, *state)
        return theta - step * m / xp.sqrt(c * c * v + np.asarray(self.epsilon, v.dtype)), (m, v)

    with patched(Adam, "apply", apply):
        yield


@fault("update", "theta", "weight decay is applied to biases too", plan=DECAY)
def biases_decayed(c: Any) -> None:
    c.decay = True


@fault("update", "theta", "weight decay is not applied", plan=DECAY)
def weights_not_decayed(c: Any) -> None:
    c.decay = False


# -- precision of what is stored --------------------------------------------------------------------------------------


@fault("dense", "A3", "rounded to 11 bits, as by tf32 or fp16", layer=3, after=True)
def activations_stored_as_fp16(c: Any) -> None:
    c.A[...] = rounded_to(c.A, 10)


@fault("dense_vjp_input", "dZ2", "rounded to 8 bits, as by bf16", layer=3, after=True)
def deltas_stored_as_bf16(c: Any) -> None:
    c.dZ_prev[...] = rounded_to(c.dZ_prev, 7)


@fault("update", "theta", "rounded to 8 bits, as by bf16", after=True)
def weights_stored_as_bf16(c: Any) -> None:
    c.theta[...] = rounded_to(c.theta, 7)
