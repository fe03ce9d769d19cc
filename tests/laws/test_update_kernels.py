"""The laws of ``backends.base.Kernels`` for what happens once per step: penalty, clipping, every optimizer.

``Bench.run`` checks at every call that inputs stay, outputs share no memory with them, and bits repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import Bench, same_bits
from support.judging import ratio

from backprop_gpu.maths.optimizers import OPTIMIZERS, Optimizer, get_optimizer
from backprop_gpu.parity.oracle import updates
from backprop_gpu.parity.oracle.bounds import Bounded, Bounds

ALL: list[Optimizer] = [
    *(get_optimizer(name) for name in OPTIMIZERS),
    get_optimizer({"name": "momentum", "variant": "average", "momentum": 0.8}),
    get_optimizer({"name": "adam", "variant": "epsilon_hat", "beta2": 0.99, "epsilon": 1e-6}),
    get_optimizer({"name": "amsgrad", "variant": "epsilon_hat"}),
    get_optimizer({"name": "lion", "weight_decay": 0.3}),
    get_optimizer({"name": "adamw", "weight_decay": 0.5, "learning_rate": 0.1}),
    get_optimizer({"name": "sgd", "average": 0.9}),
    get_optimizer({"name": "adamw", "weight_decay": 0.5, "average": 0.75}),
    get_optimizer({"name": "amsgrad", "average": 0.999}),
]
SIZES = (1, 7, 64, 997)


def name_of(optimizer: Optimizer) -> str:
    return "-".join(str(x) for x in (optimizer.name, *vars(optimizer).values()))


@pytest.fixture(params=["float32", "float64"])
def bench(request: pytest.FixtureRequest, case: Case) -> Bench:
    return Bench(case, request.param)


def sparse(bench: Bench, rng: np.random.Generator, size: int) -> np.ndarray:
    """Normal numbers of many magnitudes, every fifth exactly 0."""
    x = bench.normal(rng, size) * (10.0 ** rng.integers(-6, 2, size)).astype(bench.dtype)
    x[4::5] = 0.0
    return x


def scalars(optimizer: Optimizer, t: int, dtype: str) -> np.ndarray:
    """Step t's numbers as the device gets them, checked against their formula."""
    given = optimizer.step_scalars(t, optimizer.learning_rate)
    wanted = updates.step_numbers(optimizer.name, vars(optimizer), t, optimizer.learning_rate)
    # Both in float64: a power, two roundings and a square root (Higham, 2.2), and cancellation in 1 - beta^t.
    np.testing.assert_allclose(given, wanted, rtol=16 * 2.0**-53 / (1.0 - vars(optimizer).get("beta2", 0.0)))
    return np.array(given).astype(dtype)


def update_ratios(
    B: Bounds,
    optimizer: Optimizer,
    old: dict[str, Any],
    new: dict[str, Any],
    g: Bounded,
    numbers: list[Bounded],
    decay: bool,
) -> dict[str, float]:
    """Error over bound of each state vector and of theta, which is judged from the vectors that the device left."""
    rule = B, optimizer.name, vars(optimizer)
    averaged = optimizer.state[-1:] == ("average",)
    n, found = len(new["state"]) - averaged, {}

    def before(k: int) -> Bounded:
        return B.given(old["state"][k])

    for k in range(n):
        found[optimizer.state[k]] = ratio(new["state"][k], updates.new_state_vector(*rule, k, g, before, numbers[0]))
    theta = updates.new_theta(
        *rule, B.given(old["theta"]), g, before, lambda k: B.given(new["state"][k]), numbers, decay
    )
    found["theta"] = ratio(new["theta"], theta)
    if averaged:
        average = updates.new_average(B, before(n), B.given(new["theta"]), numbers[-1])
        found["average"] = ratio(new["state"][n], average)
    return found


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("optimizer", ALL, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_update(bench: Bench, optimizer: Optimizer, decay: bool) -> None:
    """Five steps, each judged from the state the device itself left; what is 0 with a gradient of 0 stays exactly 0."""
    B = bench.B
    for size in SIZES:
        rng = np.random.default_rng([size, decay])
        state: dict[str, Any] = {
            "theta": sparse(bench, rng, size),
            "state": [np.zeros(size, bench.dtype) for _ in optimizer.state],
        }
        for t in range(1, 6):
            grad = sparse(bench, rng, size)
            factor = None if t % 2 else np.array([0.3], bench.dtype)
            numbers = scalars(optimizer, t, bench.dtype)
            out = bench.run(
                "update",
                {"grad": grad, "scalars": numbers, "factor": factor},
                state,
                optimizer=optimizer,
                decay=decay,
            )
            g = B.given(grad) if factor is None else B.given(grad) * B.given(factor)
            rates = [B.given(numbers[i : i + 1]) for i in range(len(numbers))]
            found = update_ratios(B, optimizer, state, out, g, rates, decay)
            assert max(found.values()) <= 1.0, (size, t, found)
            for x in (out["theta"], *out["state"]):
                same_bits(x[4::5], np.zeros_like(x[4::5]))
            state = out


@pytest.mark.parametrize("case", cases())
def test_update_of_a_long_vector_is_the_update_of_its_parts(bench: Bench) -> None:
    """Blocks, threads and tails change no bit: 65,537 leaves 1 over for every block that is a power of two."""
    size, cut = 65_537, 20_011
    rng = np.random.default_rng(9)
    optimizer = get_optimizer("adamw")
    theta, grad, m = (bench.normal(rng, size) for _ in range(3))
    v = bench.normal(rng, size) ** 2
    numbers = scalars(optimizer, 7, bench.dtype)

    def updated(part: slice) -> dict[str, Any]:
        inputs = {"grad": grad[part], "scalars": numbers, "factor": None}
        state = {"theta": theta[part], "state": [m[part], v[part]]}
        return bench.run("update", inputs, state, optimizer=optimizer, decay=True)

    whole, first, rest = (updated(part) for part in (slice(None), slice(cut), slice(cut, None)))
    same_bits(whole["theta"], np.concatenate([first["theta"], rest["theta"]]))
    for k in range(2):
        same_bits(whole["state"][k], np.concatenate([first["state"][k], rest["state"][k]]))


@pytest.mark.parametrize("case", cases())
def test_penalty(bench: Bench) -> None:
    """Each strength alone, both, neither; grad and value are added to."""
    B, strength = bench.B, np.array([0.3], bench.dtype)
    for size in SIZES:
        rng = np.random.default_rng(size)
        theta, grad, value = sparse(bench, rng, size), bench.normal(rng, size), bench.normal(rng, 1)
        for l1, l2 in ((None, None), (strength, None), (None, strength), (strength, 2 * strength)):
            out = bench.run("penalty", {"theta": theta, "l1": l1, "l2": l2}, {"grad": grad, "value": value})
            given = [None if x is None else B.given(x) for x in (l1, l2)]
            assert ratio(out["grad"], updates.penalized(B, B.given(theta), B.given(grad), *given)) <= 1.0
            assert ratio(out["value"], updates.penalty_cost(B, B.given(theta), B.given(value), *given)) <= 1.0


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("case", cases())
def test_global_norm(bench: Bench, limit: float) -> None:
    B = bench.B
    for size in SIZES:
        grad = sparse(bench, np.random.default_rng(size), size)
        start = {"norm": bench.blank(1), "factor": bench.blank(1)}
        out = bench.run("global_norm", {"grad": grad}, start, max_norm=limit)
        assert ratio(out["norm"], updates.global_norm(B, grad).checked()) <= 1.0
        assert ratio(out["factor"], updates.clip_factor(B, B.given(out["norm"]), limit)) <= 1.0


@pytest.mark.parametrize("part", [0.97, 0.75, 0.5, 0.376, 0.374, -0.374, -0.376, -0.5, -0.75, -0.97, -1.04])
@pytest.mark.parametrize("case", cases())
def test_a_finite_gradient_is_clipped_rightly_though_its_squares_overflow_or_vanish(bench: Bench, part: float) -> None:
    """Numbers around 2^(part of the largest exponent): alone, many of them, and among much smaller ones."""
    exponent, B = int(part * np.log2(np.finfo(bench.dtype).max)), bench.B
    for size in SIZES:
        rng = np.random.default_rng(size)
        for spread in (0, 40):
            numbers = rng.uniform(0.5, 1.0, size) * np.ldexp(1.0, exponent - rng.integers(0, spread + 1, size))
            grad = (numbers * rng.choice([-1.0, 1.0], size)).astype(bench.dtype)
            largest = float(np.max(np.abs(grad)))
            for limit in (largest / 4.0, 2.0 * size * largest, 1.0):
                if limit > bench.B.largest:
                    continue
                start = {"norm": bench.blank(1), "factor": bench.blank(1)}
                with np.errstate(over="ignore"):  # the norm itself may be too large
                    out = bench.run("global_norm", {"grad": grad}, start, max_norm=limit)
                    norm = updates.global_norm(B, grad)
                assert ratio(out["norm"], norm.checked()) <= 1.0
                if out["norm"] >= B.eta:  # below, the bound of a quotient says nothing
                    given = norm if np.isinf(out["norm"]) else B.given(out["norm"])
                    assert ratio(out["factor"], updates.clip_factor(B, given, limit)) <= 1.0
                assert 0.0 < out["factor"] <= 1.0, "clipped to nothing"


@pytest.mark.parametrize("case", cases())
def test_a_norm_that_its_dtype_cannot_hold_clips_all_the_same(bench: Bench) -> None:
    grad = np.full(64, np.finfo(bench.dtype).max)
    start = {"norm": bench.blank(1), "factor": bench.blank(1)}
    with np.errstate(over="ignore"):
        out = bench.run("global_norm", {"grad": grad}, start, max_norm=1.0)
    assert np.isinf(out["norm"])
    np.testing.assert_allclose(out["factor"] * grad[0], 1.0 / 8.0, rtol=1e-4)


@pytest.mark.parametrize("case", cases())
def test_a_gradient_that_is_not_finite_has_no_norm(bench: Bench) -> None:
    """What follows is the business of who looks at the cost; here it is not hidden."""
    for bad, norm in ((np.inf, np.inf), (-np.inf, np.inf), (np.nan, np.nan)):
        start = {"norm": bench.blank(1), "factor": bench.blank(1)}
        with np.errstate(invalid="ignore"):
            out = bench.run("global_norm", {"grad": np.array([1.0, bad, 2.0])}, start, max_norm=1.0)
        np.testing.assert_array_equal(out["norm"], np.array([norm]))


@pytest.mark.parametrize("case", cases())
def test_global_norm_at_its_edges(bench: Bench) -> None:
    """No gradient: nothing to clip. Exactly at the limit: the factor is 1."""
    for grad, limit, norm, factor in (
        ([0.0, 0.0], 1.0, 0.0, 1.0),
        ([3.0, 4.0], 5.0, 5.0, 1.0),
        ([6.0, 8.0], 5.0, 10.0, 0.5),
    ):
        start = {"norm": bench.blank(1), "factor": bench.blank(1)}
        out = bench.run("global_norm", {"grad": np.array(grad)}, start, max_norm=limit)
        same_bits(out["norm"], np.array([norm], bench.dtype))
        same_bits(out["factor"], np.array([factor], bench.dtype))


def test_a_bound_that_is_left_is_seen() -> None:
    """The judge itself: an error just inside the bound passes, one just outside, a NaN and a wrong shape do not."""
    B = Bench(Case("numpy"), "float32").B
    x = Bounded(B, np.ones(3), 1.0, a=1e-7)
    assert ratio(np.ones(3) + 0.99e-7, x) <= 1.0
    assert ratio(np.ones(3) + 1.01e-7, x) > 1.0
    assert ratio(np.array([1.0, np.nan, 1.0]), x) == np.inf
    assert ratio(np.array([1.0, np.inf, 1.0]), x) == np.inf
    assert ratio(np.ones(2), x) == np.inf
    endless = Bounded(B, np.ones(3), 1.0, e=np.full(3, np.inf))
    assert ratio(np.ones(3), endless) == 0.0
    assert ratio(np.zeros(3), endless) == np.inf
