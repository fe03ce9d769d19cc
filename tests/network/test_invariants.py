"""What must not change a gradient, or must change it in a known way, whatever the network.

Two ways of computing the same derivative are compared within the sum of their rounding bounds (``support.whole``), or
bit for bit where no rounding separates them. Shapes, dtypes, memory orders, activations, losses and kernel sets are
drawn by hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.backends import Case
from support.bench import same_bits
from support.whole import agree, gradient

from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.maths.activations import ACTIVATIONS
from backprop_gpu.maths.losses import LOSSES
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.oracle import layers, losses
from backprop_gpu.parity.oracle.bounds import Bounded

FEW = settings(max_examples=40, derandomize=True, deadline=None)
KERNELS = ["reference", *([] if unavailable_reason() else ["native"])]
HIDDEN = [name for name, a in ACTIVATIONS.items() if not a.output_only]
Grads = dict[str, np.ndarray]


def ordered(x: np.ndarray, order: str) -> np.ndarray:
    """The same numbers in C order, Fortran order, or as every second column of something larger."""
    if order == "strided":
        wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
        wide[:, ::2] = x
        return wide[:, ::2]
    return np.array(x, order=order)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Problem:
    """A network with a batch."""

    sizes: tuple[int, ...]
    activation: str
    loss: str
    m: int
    dtype: str
    order: str
    kernels: str
    seed: int
    dropout: float = 0.0

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def step(self, parameters: Grads | None = None, **training: Any) -> TrainingStep:
        """The network with biases that are not 0 and logits of moderate size, before its first step."""
        net = DenseNet(
            self.sizes,
            activation=self.activation,
            loss=self.loss,
            dropout=self.dropout,
            dtype=self.dtype,
            device="numpy",
            seed=self.seed,
            kernels=self.kernels,
        )
        rng = self.rng
        drawn = {k: 0.7 * x + 0.1 * rng.standard_normal(x.shape) for k, x in net.parameters().items()}
        net.set_parameters(drawn if parameters is None else parameters)
        return TrainingStep(net, "sgd", **training)

    def parameters(self) -> Grads:
        return self.step().net.parameters()

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """X (n_0, m) and Y (n_L, m)."""
        rng, n = self.rng, self.sizes[-1]
        X, shape = rng.standard_normal((self.sizes[0], self.m)), (n, self.m)
        if self.loss == "categorical_cross_entropy":
            Y = losses.one_hot(rng.integers(0, n, (1, self.m)), n)
        elif self.loss == "binary_cross_entropy":
            Y = rng.integers(0, 2, shape)
        elif self.loss == "poisson":
            Y = rng.poisson(1.0, shape)
        else:
            Y = rng.standard_normal(shape)
        return X.astype(self.dtype), np.asarray(Y, self.dtype)

    def got(
        self, X: np.ndarray, Y: np.ndarray, w: Any = None, *, step: TrainingStep | None = None, **how: Any
    ) -> Grads:
        """The device's gradients by name, and J."""
        step = step or self.step()
        X, Y, w = (None if x is None else ordered(x, self.order) for x in (X, Y, w))
        step.gradient(X, Y, w, **how)
        return {**step.net.params.named(step.net.params.grad.copy()), "J": step.value.copy()}

    def bound(
        self, X: np.ndarray, Y: np.ndarray, w: Any = None, *, parameters: Grads | None = None, **how: Any
    ) -> dict[str, Bounded]:
        """The same from end to end in float64, with bounds."""
        B = Case("numpy").bounds(self.dtype)
        hidden = [(self.activation, dict(ACTIVATIONS[self.activation].parameters))] * (len(self.sizes) - 2)
        loss = (self.loss, vars(LOSSES[self.loss]()))
        return gradient(B, parameters or self.parameters(), hidden, loss, X, Y, w, **how)


@st.composite
def problems(draw: Any, *, losses: Any = tuple(LOSSES), hidden: Any = tuple(HIDDEN), dtypes: Any = None) -> Problem:
    """One to four layers of one to six units, one to twelve examples."""
    loss = draw(st.sampled_from(losses))
    inner = draw(st.lists(st.integers(1, 6), min_size=0, max_size=3))
    outputs = draw(st.integers(2 if loss == "categorical_cross_entropy" else 1, 4))
    return Problem(
        sizes=(draw(st.integers(1, 5)), *inner, outputs),
        activation=draw(st.sampled_from(hidden)),
        loss=loss,
        m=draw(st.integers(1, 12)),
        dtype=draw(st.sampled_from(dtypes or ("float32", "float64"))),
        order=draw(st.sampled_from(("C", "F", "strided"))),
        kernels=draw(st.sampled_from(KERNELS)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def weights_of(p: Problem) -> np.ndarray:
    """(1, m) whole numbers, some 0, not all."""
    w = p.rng.integers(0, 4, (1, p.m))
    w[0, p.seed % p.m] += 1
    return w.astype(p.dtype)


# -- the same gradient ------------------------------------------------------------------------------------------------


@FEW
@given(p=problems())
def test_a_gradient_is_within_its_own_bound(p: Problem) -> None:
    """The ground for the rest: both sides of every relation below are measured with this bound."""
    X, Y = p.batch()
    bound = p.bound(X, Y)
    agree(p.got(X, Y), {name: b.v for name, b in bound.items()}, bound)


@FEW
@given(p=problems(), weighted=st.booleans())
def test_late_is_early(p: Problem, weighted: bool) -> None:
    X, Y = p.batch()
    w = weights_of(p) if weighted else None
    late, early = (p.got(X, Y, w, step=p.step(one_over_m=place)) for place in ("late", "early"))
    agree(late, early, p.bound(X, Y, w, late=True), p.bound(X, Y, w))


@FEW
@given(p=problems(), k=st.integers(0, 4), micro=st.integers(1, 16))
def test_late_is_early_bit_for_bit_for_a_power_of_two(p: Problem, k: int, micro: int) -> None:
    p = replace(p, m=2**k)
    X, Y = p.batch()
    late, early = (p.got(X, Y, step=p.step(one_over_m=place), micro_batch=micro) for place in ("late", "early"))
    for name in late:
        same_bits(late[name], early[name])


@FEW
@given(p=problems(), late=st.booleans())
def test_literal_is_fused(p: Problem, late: bool) -> None:
    X, Y = p.batch()
    place = "late" if late else "early"
    literal, fused = (p.got(X, Y, step=p.step(delta=form, one_over_m=place)) for form in ("literal", "fused"))
    bounds = [p.bound(X, Y, form=form, late=late) for form in ("literal", "fused")]
    # The literal form divides by 1 - AL: where that may be 0 its bound is infinite, and nothing is claimed.
    assume(all(np.isfinite(b.e).all() for b in bounds[0].values()))
    agree(literal, fused, *bounds)


@FEW
@given(p=problems(), size=st.integers(1, 13), weighted=st.booleans(), rate=st.sampled_from((0.0, 0.4)))
def test_micro_batches_of_any_size(p: Problem, size: int, weighted: bool, rate: float) -> None:
    """Ragged tails, weights and dropout too: its masks go by the position in the whole batch."""
    p = replace(p, dropout=rate)
    X, Y = p.batch()
    w = weights_of(p) if weighted else None
    hidden = range(1, len(p.sizes) - 1) if rate else ()
    masks = {l: (layers.philox_mask(p.sizes[l], rate, p.seed, l, 0, np.arange(p.m)), rate) for l in hidden}
    whole, split = p.got(X, Y, w), p.got(X, Y, w, micro_batch=size)
    agree(whole, split, p.bound(X, Y, w, masks=masks), p.bound(X, Y, w, masks=masks, micro_batch=size))


@FEW
@given(p=problems(), size=st.integers(1, 9))
def test_weights_are_duplicates(p: Problem, size: int) -> None:
    """Whole numbers as weights are examples that occur so often, in one pass or in micro-batches."""
    X, Y = p.batch()
    w = weights_of(p)
    times = w[0].astype(int)
    X2, Y2 = np.repeat(X, times, axis=1), np.repeat(Y, times, axis=1)
    weighted, repeated = p.got(X, Y, w), p.got(X2, Y2, micro_batch=size)
    agree(weighted, repeated, p.bound(X, Y, w), p.bound(X2, Y2, micro_batch=size))


@FEW
@given(p=problems(), cut=st.integers(1, 11))
def test_parts_with_the_sum_of_all_weights_add_up(p: Problem, cut: int) -> None:
    """As ranks do: each divides by the denominator of the whole, and the gradients are summed."""
    assume(cut < p.m)
    X, Y = p.batch()
    w = np.ones((1, p.m), p.dtype)
    parts, D = (slice(0, cut), slice(cut, None)), float(p.m)
    shares = [p.got(X[:, s], Y[:, s], w[:, s], weights_sum=D) for s in parts]
    allowed = [p.bound(X[:, s], Y[:, s], w[:, s], D=D) for s in parts]
    total = {name: shares[0][name].astype(np.float64) + shares[1][name] for name in shares[0]}
    agree(total, p.got(X, Y), *allowed, p.bound(X, Y))


@FEW
@given(p=problems())
def test_the_order_of_examples_does_not_matter(p: Problem) -> None:
    X, Y = p.batch()
    order = p.rng.permutation(p.m)
    agree(p.got(X[:, order], Y[:, order]), p.got(X, Y), p.bound(X, Y))


@FEW
@given(p=problems())
def test_a_batch_twice_has_the_same_mean_gradient(p: Problem) -> None:
    X, Y = p.batch()
    X2, Y2 = np.hstack([X, X]), np.hstack([Y, Y])
    agree(p.got(X2, Y2), p.got(X, Y), p.bound(X2, Y2), p.bound(X, Y))


@FEW
@given(p=problems())
def test_a_sum_is_D_times_the_mean(p: Problem) -> None:
    X, Y = p.batch()
    total, mean = p.got(X, Y, step=p.step(reduction="sum")), p.got(X, Y)
    scaled = {name: b * float(p.m) for name, b in p.bound(X, Y).items()}
    agree(total, {name: p.m * x.astype(np.float64) for name, x in mean.items()}, p.bound(X, Y, D=1.0), scaled)


@FEW
@given(p=problems(), size=st.sampled_from((1e3, 1e15)), late=st.booleans())
def test_an_example_of_weight_zero_contributes_nothing(p: Problem, size: float, late: bool) -> None:
    """However large it is."""
    X, Y = p.batch()
    w = weights_of(p)
    X2 = np.hstack([X, np.full((X.shape[0], 1), size, p.dtype)])
    Y2, w2 = np.hstack([Y, Y[:, :1]]), np.hstack([w, np.zeros((1, 1), p.dtype)])
    step = {"one_over_m": "late"} if late else {}
    with np.errstate(over="ignore", invalid="ignore"):  # its own loss overflows, and 0 times infinity is NaN
        more = p.got(X2, Y2, w2, step=p.step(**step))
    agree(more, p.got(X, Y, w, step=p.step(**step)), p.bound(X, Y, w, late=late))


@FEW
@given(p=problems(losses=("categorical_cross_entropy",)))
def test_labels_are_one_hot_columns(p: Problem) -> None:
    X, Y = p.batch()
    labels, columns = p.got(X, Y.argmax(axis=0)[None, :].astype(np.int64)), p.got(X, Y)
    for name in labels:
        same_bits(labels[name], columns[name])


# -- a gradient that changes in a known way -------------------------------------------------------------------------


@FEW
@given(p=problems(hidden=("relu", "leaky_relu", "identity")), k=st.integers(-6, 6))
def test_rescaling_a_positively_homogeneous_unit(p: Problem, k: int) -> None:
    """relu(2^k z) = 2^k relu(z): J keeps its bits, and dW1, dW2 are scaled by exact powers of two."""
    assume(len(p.sizes) > 2)
    X, Y = p.batch()
    c, before = 2.0**k, p.parameters()
    after = {**before, "W1": c * before["W1"], "b1": c * before["b1"], "W2": before["W2"] / c}
    plain, scaled = p.got(X, Y), p.got(X, Y, step=p.step(after))
    for name, factor in {**dict.fromkeys(plain, 1.0), "W1": 1 / c, "b1": 1 / c, "W2": c}.items():
        same_bits(scaled[name], (factor * plain[name]).astype(p.dtype))


@FEW
@given(p=problems())
def test_permuting_hidden_units_permutes_gradients(p: Problem) -> None:
    assume(len(p.sizes) > 2)
    X, Y = p.batch()
    q, before = p.rng.permutation(p.sizes[1]), p.parameters()
    after = {**before, "W1": before["W1"][q], "b1": before["b1"][q], "W2": before["W2"][:, q]}
    plain, moved = p.got(X, Y), p.got(X, Y, step=p.step(after))
    wanted = {**plain, "W1": plain["W1"][q], "b1": plain["b1"][q], "W2": plain["W2"][:, q]}
    bound = p.bound(X, Y, parameters=after)
    agree(moved, wanted, bound)


@FEW
@given(p=problems(losses=("binary_cross_entropy",)))
def test_swapping_the_classes_and_the_sign_of_the_last_layer(p: Problem) -> None:
    """Y -> 1 - Y with W[L], b[L] negated: the same J; their gradients are negated, the others stay."""
    X, Y = p.batch()
    L, before = len(p.sizes) - 1, p.parameters()
    last = (f"W{L}", f"b{L}")
    after = {name: -x if name in last else x for name, x in before.items()}
    plain, swapped = p.got(X, Y), p.got(X, 1 - Y, step=p.step(after))
    wanted = {name: -x if name in last else x for name, x in plain.items()}
    agree(swapped, wanted, p.bound(X, Y), p.bound(X, 1 - Y, parameters=after))


@FEW
@given(p=problems())
def test_db_is_dW_of_an_input_that_is_always_one(p: Problem) -> None:
    """db1 = sum of dZ1, and so is the column of dW1 whose input is 1."""
    X, Y = p.batch()
    X[0] = 1.0
    got, bound = p.got(X, Y), p.bound(X, Y)
    column = {"b": bound["W1"][:, :1]}
    agree({"b": got["b1"]}, {"b": got["W1"][:, :1]}, {"b": bound["b1"]}, column)


@FEW
@given(p=problems(dtypes=("float64",)))
def test_J_falls_along_the_gradient(p: Problem) -> None:
    """By lr |g|^2 to first order."""
    X, Y = p.batch()
    step = p.step()
    before = p.got(X, Y, step=step)
    square = float(sum((x**2).sum() for name, x in before.items() if name != "J"))
    assume(1e-3 < square < 1e4)
    lr = 1e-7
    moved = {name: x - lr * before[name] for name, x in step.net.parameters().items()}
    fall = float(before["J"][0] - p.got(X, Y, step=p.step(moved))["J"][0])
    assert fall == pytest.approx(lr * square, rel=0.05)


# -- along a run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_forms_agree_at_every_step_of_a_run(loss: str, dtype: str) -> None:
    """20 steps; at each, late, literal and micro-batches give the gradient that is about to be applied."""
    p = Problem((4, 6, 5, 3), "tanh", loss, 9, dtype, "C", "native", 7)
    X, Y = p.batch()
    run, finite = p.step(), 0
    ways: list[dict[str, Any]] = [
        {"one_over_m": "late"},
        {"delta": "literal"},
        {"delta": "literal", "one_over_m": "late"},
    ]
    for _ in range(20):
        now = run.net.parameters()
        run(X, Y)
        applied = {**run.net.params.named(run.net.params.grad.copy()), "J": run.value.copy()}
        fused = p.bound(X, Y, parameters=now)
        for way in ways:
            how = {"late": way.get("one_over_m") == "late", "form": way.get("delta", "fused")}
            for micro in (None, 4):
                bound = p.bound(X, Y, parameters=now, micro_batch=micro, **how)
                agree(p.got(X, Y, step=p.step(now, **way), micro_batch=micro), applied, bound, fused)
                finite += 1
    assert finite == 120
