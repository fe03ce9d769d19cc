"""Every rule against the recurrence of its paper, written again here for one number at a time in Python floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from typing import Any

import array_api_strict
import numpy as np
import pytest
from support.strict import DEVICES, to_host, to_strict

from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.optimizers import OPTIMIZERS, Optimizer, get_optimizer

Rule = Callable[[float, list[float], list[float]], Iterator[float]]


# Each rule yields theta after every step, from theta_0, the gradients g_1, g_2, ... and the learning rates.
def sgd(x: float, gs: list[float], lrs: list[float]) -> Iterator[float]:
    for g, lr in zip(gs, lrs, strict=True):
        x -= lr * g
        yield x


def polyak(mu: float) -> Rule:
    """Sutskever et al. 2013, equations 1 and 2: v <- mu v - lr g, theta <- theta + v."""

    def rule(x: float, gs: list[float], lrs: list[float]) -> Iterator[float]:
        v = 0.0
        for g, lr in zip(gs, lrs, strict=True):
            v = mu * v - lr * g
            x += v
            yield x

    return rule


def averaged(beta: float) -> Rule:
    """Course 2, week 2: v <- beta v + (1 - beta) g, theta <- theta - lr v."""

    def rule(x: float, gs: list[float], lrs: list[float]) -> Iterator[float]:
        v = 0.0
        for g, lr in zip(gs, lrs, strict=True):
            v = beta * v + (1 - beta) * g
            x -= lr * v
            yield x

    return rule


def nesterov(mu: float) -> Rule:
    """Bengio et al. 2013, equation 7: theta <- theta + mu mu v - (1 + mu) lr g; v <- mu v - lr g."""

    def rule(x: float, gs: list[float], lrs: list[float]) -> Iterator[float]:
        v = 0.0
        for g, lr in zip(gs, lrs, strict=True):
            x += mu * mu * v - (1 + mu) * lr * g
            v = mu * v - lr * g
            yield x

    return rule


def rmsprop(rho: float, eps: float) -> Rule:
    """Hinton 2012, lecture 6e."""

    def rule(x: float, gs: list[float], lrs: list[float]) -> Iterator[float]:
        s = 0.0
        for g, lr in zip(gs, lrs, strict=True):
            s = rho * s + (1 - rho) * g**2
            x -= lr * g / (math.sqrt(s) + eps)
            yield x

    return rule


def adagrad(eps: float) -> Rule:
    """Duchi et al. 2011: the square root of the sum of all squares so far."""

    def rule(x: float, gs: list[float], lrs: list[float]) -> Iterator[float]:
        for i, lr in enumerate(lrs):
            x -= lr * gs[i] / (math.sqrt(sum(g**2 for g in gs[: i + 1])) + eps)
            yield x

    return rule


def adam(
    b1: float, b2: float, eps: float, *, eps_hat: bool = False, decay: float = 0.0, never_falls: bool = False
) -> Rule:
    """Kingma & Ba 2015, algorithm 1, from the unrolled averages of its section 3.

    ``eps_hat``: the order of the end of section 2. ``decay``: Loshchilov & Hutter 2019, algorithm 2, with eta = lr and
    alpha = 1. ``never_falls``: Reddi et al. 2018, algorithm 2.
    """

    def rule(x: float, gs: list[float], lrs: list[float]) -> Iterator[float]:
        v_max = 0.0
        for t in range(1, len(gs) + 1):
            m = (1 - b1) * sum(b1 ** (t - i) * gs[i - 1] for i in range(1, t + 1))
            v = (1 - b2) * sum(b2 ** (t - i) * gs[i - 1] ** 2 for i in range(1, t + 1))
            v_max = max(v_max, v) if never_falls else v
            lr = lrs[t - 1]
            if eps_hat:
                move = lr * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (math.sqrt(v_max) + eps)
            else:
                move = lr * (m / (1 - b1**t)) / (math.sqrt(v_max / (1 - b2**t)) + eps)
            x = x - move - lr * decay * x
            yield x

    return rule


def lion(b1: float, b2: float, decay: float) -> Rule:
    """Chen et al. 2023: the sign of one average moves the weight, another average is kept."""

    def rule(x: float, gs: list[float], lrs: list[float]) -> Iterator[float]:
        m = 0.0
        for g, lr in zip(gs, lrs, strict=True):
            c = b1 * m + (1 - b1) * g
            x -= lr * (math.copysign(1.0, c) * (c != 0.0) + decay * x)
            m = b2 * m + (1 - b2) * g
            yield x

    return rule


# eps is large enough to show where it stands.
CASES: list[tuple[dict[str, Any], Rule]] = [
    ({"name": "sgd"}, sgd),
    ({"name": "momentum", "momentum": 0.8}, polyak(0.8)),
    ({"name": "momentum", "momentum": 0.8, "variant": "average"}, averaged(0.8)),
    ({"name": "nesterov", "momentum": 0.8}, nesterov(0.8)),
    ({"name": "rmsprop", "rho": 0.8, "epsilon": 0.1}, rmsprop(0.8, 0.1)),
    ({"name": "adagrad", "epsilon": 0.1}, adagrad(0.1)),
    ({"name": "adam"}, adam(0.9, 0.999, 1e-8)),
    ({"name": "adam", "beta1": 0.7, "beta2": 0.8, "epsilon": 0.1}, adam(0.7, 0.8, 0.1)),
    (
        {"name": "adam", "beta1": 0.7, "beta2": 0.8, "epsilon": 0.1, "variant": "epsilon_hat"},
        adam(0.7, 0.8, 0.1, eps_hat=True),
    ),
    ({"name": "adamw", "beta2": 0.8, "epsilon": 0.1, "weight_decay": 0.3}, adam(0.9, 0.8, 0.1, decay=0.3)),
    (
        {"name": "adamw", "beta2": 0.8, "epsilon": 0.1, "weight_decay": 0.3, "variant": "epsilon_hat"},
        adam(0.9, 0.8, 0.1, eps_hat=True, decay=0.3),
    ),
    ({"name": "amsgrad", "beta1": 0.7, "beta2": 0.5, "epsilon": 0.1}, adam(0.7, 0.5, 0.1, never_falls=True)),
    (
        {"name": "amsgrad", "beta1": 0.7, "beta2": 0.5, "epsilon": 0.1, "variant": "epsilon_hat"},
        adam(0.7, 0.5, 0.1, eps_hat=True, never_falls=True),
    ),
    ({"name": "lion", "beta1": 0.6, "beta2": 0.8, "weight_decay": 0.3}, lion(0.6, 0.8, 0.3)),
]
STEPS = 10
# Large, small and of both signs, so that averages turn and AMSGrad's maximum holds; no average of them is near 0.
GRADIENTS = np.array([1.0, 3.0, -0.5, -4.0, 0.25, 0.125, -1.5, 2.0, 0.0, 0.5])[:, None] * [1.0, -0.37, 2.9]
START = np.array([1.0, -2.0, 0.5])
RATES = [0.1 * 0.9**t for t in range(STEPS)]


def run(
    optimizer: Optimizer,
    dtype: str,
    *,
    decay: bool = True,
    xp: Any = np,
    device: str = "device1",
    buffers: bool = False,
) -> list[np.ndarray]:
    """theta after each of the ten steps. ``buffers``: the scalars arrive as one-element arrays of the dtype."""

    def move(x: Any) -> Any:
        return np.asarray(x, dtype) if xp is np else to_strict(np.asarray(x, dtype), device)

    theta, state, out = move(START), tuple(move(np.zeros(3)) for _ in optimizer.state_names), []
    for t in range(1, STEPS + 1):
        scalars: Any = optimizer.scalars(t, RATES[t - 1])
        assert len(scalars) <= 3
        scalars = [move([s]) for s in scalars] if buffers else scalars
        theta, state = optimizer.apply(xp, theta, move(GRADIENTS[t - 1]), state, scalars, decay=decay)
        assert len(state) == len(optimizer.state_names)
        out.append(theta if xp is np else to_host(theta, device))
        assert out[-1].dtype == dtype
        assert out[-1].shape == (3,)
    return out


def expected(rule: Rule) -> np.ndarray:
    """(steps, 3)."""
    return np.array([list(rule(x, GRADIENTS[:, j].tolist(), RATES)) for j, x in enumerate(START.tolist())]).T


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize(("dtype", "u"), [("float32", 2.0**-24), ("float64", 2.0**-53)])
@pytest.mark.parametrize(("spec", "rule"), CASES, ids=[str(c[0]) for c in CASES])
def test_ten_steps_of_the_paper(spec: dict[str, Any], rule: Rule, dtype: str, u: float, buffers: bool) -> None:
    """Each step moves by at most 3 here and rounds about 16 times: 64 u per step covers the sum of all."""
    want = expected(rule)
    got = np.array(run(get_optimizer(spec), dtype, buffers=buffers), dtype=float)
    for t in range(STEPS):
        assert np.max(np.abs(got[t] - want[t])) <= 64 * (t + 1) * u, f"step {t + 1}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("spec", [c[0] for c in CASES], ids=str)
def test_array_api_strict_gives_numpys_bits_on_its_device(spec: dict[str, Any], device: str) -> None:
    optimizer = get_optimizer(spec)
    plain = run(optimizer, "float32", buffers=True)
    assert np.array_equal(run(optimizer, "float32", xp=array_api_strict, device=device, buffers=True), plain)


@pytest.mark.parametrize("spec", [c[0] for c in CASES], ids=str)
def test_nothing_is_written_in_place(spec: dict[str, Any]) -> None:
    optimizer = get_optimizer(spec)
    theta, grad = START.copy(), GRADIENTS[0].copy()
    state = tuple(np.full(3, 0.5) for _ in optimizer.state_names)
    moved, after = optimizer.apply(np, theta, grad, state, optimizer.scalars(1, 0.1), decay=True)
    assert np.array_equal(theta, START)
    assert np.array_equal(grad, GRADIENTS[0])
    assert all(np.array_equal(s, np.full(3, 0.5)) for s in state)
    assert not any(np.shares_memory(a, b) for a in (moved, *after) for b in (theta, grad, *state))


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("variant", ["paper", "epsilon_hat"])
@pytest.mark.parametrize("name", ["adam", "adamw", "amsgrad"])
def test_adams_first_step_is_the_sign_to_seven_digits_in_float32(name: str, variant: str, buffers: bool) -> None:
    """m/(1 - b1) = g and v/(1 - b2) = g^2 exactly. In float32, 1 - 0.999 alone would be wrong by 1.7e-5."""
    optimizer = get_optimizer({"name": name, "variant": variant, "epsilon": 1e-12})
    grad = np.array([1.0, -0.3, 7.0, 1e-3], np.float32)
    state = tuple(np.zeros_like(grad) for _ in optimizer.state_names)
    scalars: Any = optimizer.scalars(1, 0.5)
    scalars = [np.array([s], np.float32) for s in scalars] if buffers else scalars
    theta, _ = optimizer.apply(np, np.zeros_like(grad), grad, state, scalars, decay=False)
    assert np.max(np.abs(theta / -0.5 - np.sign(grad))) <= 8 * 2.0**-24


def test_adams_bias_corrections_start_at_step_one() -> None:
    step, c = get_optimizer("adam").scalars(1, 0.5)
    assert step == pytest.approx(5.0, rel=1e-15)
    assert c == pytest.approx(math.sqrt(1000.0), rel=1e-12)
    step, c = get_optimizer("adam").scalars(2, 0.5)
    assert step == pytest.approx(0.5 / 0.19, rel=1e-14)
    assert c == pytest.approx(1.0 / math.sqrt(0.001999), rel=1e-12)
    step, c = get_optimizer({"name": "adam", "variant": "epsilon_hat"}).scalars(2, 0.5)
    assert step == pytest.approx(0.5 * math.sqrt(0.001999) / 0.19, rel=1e-12)
    assert c == 1.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_decoupled_decay_decays_and_only_where_asked(name: str) -> None:
    """With a zero gradient nothing but the decay moves a weight: theta (1 - lr lambda)."""
    decays = "weight_decay" in {f.name for f in fields(OPTIMIZERS[name])}
    optimizer = get_optimizer({"name": name, "weight_decay": 0.5} if decays else name)
    state = tuple(np.zeros(3) for _ in optimizer.state_names)
    for decay in (True, False):
        theta, _ = optimizer.apply(np, START, np.zeros(3), state, optimizer.scalars(1, 0.25), decay=decay)
        assert np.array_equal(theta, START * (0.875 if decay and decays else 1.0))
    assert decays == (name in ("adamw", "lion"))
    if not decays:
        assert np.array_equal(run(optimizer, "float64", decay=True), run(optimizer, "float64", decay=False))


@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        ({"name": "sgd", "learning_rate": 0.1}, 200),
        ({"name": "momentum", "learning_rate": 0.05}, 200),
        ({"name": "momentum", "learning_rate": 0.3, "variant": "average"}, 200),
        ({"name": "nesterov", "learning_rate": 0.05}, 200),
        ({"name": "rmsprop", "learning_rate": 0.05}, 300),
        ({"name": "adagrad", "learning_rate": 1.0}, 200),
        ({"name": "adam", "learning_rate": 0.1}, 300),
        ({"name": "adamw", "learning_rate": 0.1, "weight_decay": 1e-4}, 300),
        ({"name": "amsgrad", "learning_rate": 0.1}, 300),
        ({"name": "lion", "learning_rate": 0.05}, 300),
    ],
    ids=str,
)
def test_a_quadratic_falls_a_thousandfold(spec: dict[str, Any], steps: int) -> None:
    """J = sum a x^2 / 2 with a from 0.5 to 4, learning rate falling along a line to 0."""
    optimizer, a = get_optimizer(spec), np.array([0.5, 1.0, 4.0])
    x, state = np.array([3.0, -2.0, 1.0]), tuple(np.zeros(3) for _ in optimizer.state_names)
    start = np.sum(a * x * x)
    for t in range(1, steps + 1):
        lr = optimizer.learning_rate * (1.0 - t / (steps + 1))
        x, state = optimizer.apply(np, x, a * x, state, optimizer.scalars(t, lr), decay=True)
    assert np.sum(a * x * x) <= start / 1000.0


def invalid_values() -> Iterator[tuple[str, str, Any]]:
    """Out-of-range values of every numeric parameter of every optimizer, read off its fields."""
    for name, cls in OPTIMIZERS.items():
        for f in fields(cls):
            assert f.default is not MISSING
            if isinstance(f.default, str):
                yield from ((name, f.name, v) for v in ("", "papr", None, 1.0))
                continue
            yield from ((name, f.name, v) for v in (math.nan, math.inf, -math.inf, -1e-9, -1.0))
            if f.name in ("learning_rate", "epsilon"):
                yield name, f.name, 0.0
            elif f.name != "weight_decay":
                yield from ((name, f.name, v) for v in (1.0, 1, 2.5))


@pytest.mark.parametrize(("name", "parameter", "value"), list(invalid_values()))
def test_values_out_of_range_are_refused(name: str, parameter: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"optimizer {name}: {parameter} must be ") as caught:
        get_optimizer({"name": name, parameter: value})
    assert repr(value) in str(caught.value) or str(value) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["0.1", None, True, np.float32(-1.0)], ids=repr)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_values_of_the_wrong_kind_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError):
        get_optimizer({"name": name, "learning_rate": value})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_ends_of_the_ranges_are_allowed(name: str) -> None:
    numeric = [f.name for f in fields(OPTIMIZERS[name]) if not isinstance(f.default, str)]
    lowest = {n: 1e-300 if n in ("learning_rate", "epsilon") else 0 for n in numeric}
    assert get_optimizer({"name": name, **lowest}).spec().items() >= lowest.items()
    highest = {n: math.nextafter(1.0, 0.0) for n in numeric if n in ("momentum", "beta1", "beta2", "rho", "average")}
    assert get_optimizer({"name": name, **highest}).spec().items() >= highest.items()


@pytest.mark.parametrize("spec", [c[0] for c in CASES], ids=str)
def test_specs_go_round(spec: dict[str, Any]) -> None:
    optimizer = get_optimizer(spec)
    assert optimizer.spec().items() >= spec.items()
    assert get_optimizer(optimizer.spec()) == optimizer
    assert get_optimizer(optimizer) is optimizer
    assert set(optimizer.spec()) == {"name", *(f.name for f in fields(optimizer))}


def test_slots_and_published_defaults() -> None:
    assert {name: c.state_names for name, c in OPTIMIZERS.items()} == {
        "sgd": (),
        "momentum": ("v",),
        "nesterov": ("v",),
        "rmsprop": ("s",),
        "adagrad": ("s",),
        "adam": ("m", "v"),
        "adamw": ("m", "v"),
        "amsgrad": ("m", "v", "v_max"),
        "lion": ("m",),
    }
    moments = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "variant": "paper"}
    assert {get_optimizer(name).average for name in OPTIMIZERS} == {0.0}
    found = {name: {k: v for k, v in vars(get_optimizer(name)).items() if k != "average"} for name in OPTIMIZERS}
    assert found == {
        "sgd": {"learning_rate": 1e-2},
        "momentum": {"learning_rate": 1e-2, "momentum": 0.9, "variant": "velocity"},
        "nesterov": {"learning_rate": 1e-2, "momentum": 0.9},
        "rmsprop": {"learning_rate": 1e-3, "rho": 0.9, "epsilon": 1e-8},
        "adagrad": {"learning_rate": 1e-2, "epsilon": 1e-8},
        "adam": moments,
        "adamw": {**moments, "weight_decay": 1e-2},
        "amsgrad": moments,
        "lion": {"learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0},
    }
    assert get_optimizer("sgd").scalars(1, 0.5) == (0.5,)


def averages(optimizer: Optimizer, dtype: str = "float64", xp: Any = np, device: str = "device1") -> list[np.ndarray]:
    """The average after each of the ten steps; ``run`` with all that a training step asks of an optimizer."""

    def move(x: Any) -> Any:
        return np.asarray(x, dtype) if xp is np else to_strict(np.asarray(x, dtype), device)

    # What the state holds at the start must not matter.
    theta, state, out = move(START), tuple(move(np.full(3, float(i))) for i in range(len(optimizer.state))), []
    state = tuple(move(np.zeros(3)) for _ in optimizer.state_names) + state[len(optimizer.state_names) :]
    for t in range(1, STEPS + 1):
        numbers = [move([x]) for x in optimizer.step_scalars(t, RATES[t - 1])]
        theta, state = optimizer.step(xp, theta, move(GRADIENTS[t - 1]), state, numbers, decay=True)
        assert len(state) == len(optimizer.state)
        out.append(state[-1] if xp is np else to_host(state[-1], device))
    return out


@pytest.mark.parametrize("average", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("spec", [c[0] for c in CASES], ids=str)
def test_the_average_is_the_weighted_mean_of_all_steps(spec: dict[str, Any], average: float) -> None:
    """Step i counts d^(t - i), the weights made to sum to 1, whatever the rule and its own state."""
    optimizer = get_optimizer(spec | {"average": average})
    thetas = np.array(run(get_optimizer(spec), "float64", buffers=True))
    for t, found in enumerate(averages(optimizer), 1):
        weights = average ** np.arange(t - 1, -1, -1.0)
        np.testing.assert_allclose(found, weights @ thetas[:t] / weights.sum(), rtol=1e-12)


def test_the_average_begins_with_the_first_parameters_and_then_their_plain_mean() -> None:
    optimizer = get_optimizer({"name": "sgd", "average": math.nextafter(1.0, 0.0)})
    assert optimizer.step_scalars(1, 0.1) == (0.1, 1.0)
    found, thetas = averages(optimizer), np.array(run(optimizer, "float64", buffers=True))
    assert np.array_equal(found[0], thetas[0])
    np.testing.assert_allclose(found[3], thetas[:4].mean(axis=0), rtol=1e-12)


def test_without_an_average_a_step_is_the_rule_alone() -> None:
    plain = get_optimizer("adam")
    assert (plain.state, plain.step_scalars(3, 0.1)) == (plain.state_names, plain.scalars(3, 0.1))
    averaged_too = get_optimizer({"name": "adam", "average": 0.9})
    assert averaged_too.state == ("m", "v", "average")
    assert averaged_too.step_scalars(3, 0.1) == (*plain.scalars(3, 0.1), (1 - 0.9) / (1 - 0.9**3))


@pytest.mark.parametrize("device", DEVICES)
def test_array_api_strict_averages_to_numpys_bits(device: str) -> None:
    optimizer = get_optimizer({"name": "adam", "average": 0.9})
    strict = averages(optimizer, "float32", array_api_strict, device)
    assert np.array_equal(strict, averages(optimizer, "float32"))
