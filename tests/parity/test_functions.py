"""``check_step``: no honest device is accused, whatever the function and the order of its sums; faults are."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.backends import cases

from backprop_gpu.backends.base import Backend
from backprop_gpu.errors import CheckpointError, ConfigError, DataError, DeviceError, MissingDependencyError
from backprop_gpu.maths.special import erf
from backprop_gpu.parity.bounded_array import Untraceable
from backprop_gpu.parity.claims import arithmetic_of
from backprop_gpu.parity.functions import FunctionReport, check_step
from backprop_gpu.parity.report import Report

# Every device there is, CuPy as a skip with its reason; jax where it is installed.
DEVICES = [
    pytest.param(p.values[0].device, id=p.values[0].device, marks=p.marks)
    for p in cases()
    if p.values[0].kind == "reference"
]
if importlib.util.find_spec("jax"):
    DEVICES.append(pytest.param("jax", id="jax"))

rng = np.random.default_rng(7)
W, A, B_ = rng.normal(size=(9, 14)), rng.normal(size=(14, 23)), rng.normal(size=(9, 1))
Y = np.eye(9)[rng.integers(0, 9, 23)].T
V = rng.normal(size=(9, 23))


# -- functions of all kinds -------------------------------------------------------------------------------------------


def softmax(xp: Any, z: Any) -> Any:
    e = xp.exp(z - xp.max(z, axis=0, keepdims=True))
    return e / xp.sum(e, axis=0, keepdims=True)


def layer(xp: Any, W: Any, A: Any, b: Any) -> Any:
    return xp.tanh(W @ A + b)


def whole_step(xp: Any, W: Any, A: Any, b: Any, Y: Any) -> dict[str, Any]:
    P = softmax(xp, xp.matmul(W, A) + b)
    dZ = (P - Y) / A.shape[1]
    dW = xp.matmul(dZ, A.T)
    J = -xp.mean(xp.sum(Y * xp.log(P), axis=0))
    return {"P": P, "gradients": (dW, xp.sum(dZ, axis=1, keepdims=True)), "W": W - 0.1 * dW, "J": J}


def layer_norm(xp: Any, x: Any, gain: Any) -> Any:
    centred = x - xp.mean(x, axis=0, keepdims=True)
    spread = xp.sqrt(xp.mean(centred * centred, axis=0, keepdims=True) + 1e-5)
    return gain * (centred / spread)


def attention(xp: Any, q: Any, k: Any, v: Any) -> Any:
    scores = xp.matmul(q.T, k) / math.sqrt(q.shape[0])
    return xp.matmul(v, softmax(xp, scores.T))


def adam(xp: Any, theta: Any, g: Any, m: Any) -> Any:
    m = 0.9 * m + 0.1 * g
    v = 0.001 * xp.square(g)
    return theta - 1e-3 * (m / 0.1) / (xp.sqrt(v / 0.001) + 1e-8)


def losses(xp: Any, z: Any, y: Any) -> dict[str, Any]:
    r = xp.abs(z - y)
    return {
        "bce": xp.maximum(z, 0.0) - z * y + xp.log1p(xp.exp(-xp.abs(z))),
        "huber": xp.where(xp.less(r, 1.0), 0.5 * r**2, r - 0.5),
        "poisson": xp.exp(z) - y * z,
        "sign": xp.sign(z),
    }


def activations(xp: Any, z: Any) -> list[Any]:
    e = xp.exp(-xp.abs(z))
    return [
        xp.where(xp.greater(z, 0.0), 1.0, e) / (1.0 + e),
        xp.where(z > 0.0, z, xp.expm1(xp.minimum(z, 0.0))),
        0.5 * z * (1.0 + xp.tanh(0.7978845608 * (z + 0.044715 * z * z * z))),
        z * 0.5 * (1.0 + erf(xp, z * 0.7071067811865476)),
        1.0 / (1.0 + xp.square(z)),
        xp.sin(z) * xp.cos(z),
        xp.clip(z, -0.5, 0.5),
    ]


def moves(xp: Any, x: Any, order: Any) -> dict[str, Any]:
    wide = xp.concat([x, xp.ones_like(x)], axis=0)
    top, rest = wide[:3, :], wide[3:, ::2]
    return {
        "reshaped": xp.reshape(wide, (-1,)),
        "stacked": xp.stack([top, -top], axis=-1),
        "taken": xp.take(rest, order, axis=0),
        "permuted": xp.permute_dims(top[None, ...], (2, 0, 1)),
        "row sums": xp.sum(xp.flip(top, axis=1), axis=(0, 1)),
        "largest": xp.max(wide, axis=1),
        "smallest": xp.min(wide),
        "labels": order,
        "halves": xp.zeros_like(x) + xp.full_like(x, 0.5),
        "positive": xp.logical_and(x > 0.0, xp.logical_not(xp.greater(x, 1.0))),
    }


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "layer": (layer, (W, A, B_)),
    "whole step": (whole_step, (W, A, B_, Y)),
    "layer norm": (layer_norm, (V, B_)),
    "attention": (attention, (W[:, :7], W[:, :7] + 0.1, W[:, 7:])),
    "adam": (adam, (V, V[::-1].copy(), 0.01 * V)),
    "losses": (losses, (V, (V > 0.3).astype(float))),
    "activations": (activations, (2.0 * V,)),
    "moves": (moves, (V, np.array([2, 0, 1]))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("device", DEVICES)
def test_every_device_passes_on_every_function(device: str, dtype: str, name: str) -> None:
    fn, arrays = FUNCTIONS[name]
    report = check_step(fn, *arrays, devices=[device], dtype=dtype)
    assert report.ok, str(report.findings)
    assert report.first is None
    assert all(f.ratio <= 1.0 and f.status == "ok" for f in report), str(report.findings)


def test_the_bounds_are_within_sight_of_the_errors() -> None:
    """A bound that is never approached would find nothing: one operation stays above a hundredth of it."""
    for fn in (lambda xp, x: x * 0.1, lambda xp, x: x / 3.0, lambda xp, x: xp.exp(x), lambda xp, x: xp.matmul(x, x.T)):
        (finding,) = check_step(fn, V)
        assert 0.01 < finding.ratio <= 1.0


@pytest.mark.parametrize("device", DEVICES)
def test_division_by_a_number_and_of_one_may_go_through_the_reciprocal(device: str) -> None:
    x = np.concatenate([V.reshape(-1), arguments("float32")[:20_000]])
    with np.errstate(all="ignore"):
        for fn in (lambda xp, x: x / 3.0, lambda xp, x: 0.3 / x, lambda xp, x: x / 7, lambda xp, x: x**-1.0):
            assert check_step(fn, x, devices=[device]).ok


class Numpy:
    """NumPy with some functions in the place of its own."""

    def __init__(self, **own: Any) -> None:
        self.own = own

    def __getattr__(self, name: str) -> Any:
        return self.own[name] if name in self.own else getattr(np, name)


def device(**own: Any) -> Backend:
    return Backend("numpy:changed", Numpy(**own))


def added_up(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    """One after the other, from the last to the first."""
    axis = tuple(range(x.ndim)) if axis is None else axis
    rows = np.moveaxis(x, axis, range(len(axis)) if isinstance(axis, tuple) else 0)
    rows = rows.reshape(-1, *rows.shape[len(axis) if isinstance(axis, tuple) else 1 :])
    total = np.zeros(rows.shape[1:], x.dtype)
    for row in rows[::-1]:
        total = total + row
    return np.asarray(np.expand_dims(total, axis) if keepdims else total)


def product(order: slice) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
        for column, row in zip(a.T[order], b[order], strict=True):
            total = total + column[:, None] * row
        return total

    return matmul


@pytest.mark.parametrize("step", [1, -1])
def test_no_order_of_summation_is_accused(step: int) -> None:
    order = device(matmul=product(slice(None, None, step)), sum=added_up)
    big = rng.normal(size=(6, 3000)) + 1.0
    for fn, arrays in [
        *FUNCTIONS.values(),
        (lambda xp, x: xp.matmul(x, x.T), (big,)),
        (lambda xp, x: xp.sum(x), (big,)),
    ]:
        report = check_step(fn, *arrays, devices=[order])
        assert report.ok, str(report.findings)


# -- any expression ---------------------------------------------------------------------------------------------------

leaves = st.sampled_from(["x", "y", "(0.3 * x)", "(y - 2.0)", "(1e-3 + x)", "(0.1 / (y * y + 1.0))"])
unary = st.sampled_from(
    [
        "(-{})",
        "({} * 0.7)",
        "xp.exp(xp.minimum({}, 3.0))",
        "xp.tanh({})",
        "xp.abs({})",
        "xp.log1p(xp.abs({}))",
        "xp.maximum({}, 0.1)",
        "xp.sqrt(xp.abs({}) + 0.01)",
        "xp.sum({}, axis=0, keepdims=True)",
        "xp.mean({} + y, axis=1, keepdims=True)",
        "xp.square({})",
        "xp.expm1(xp.clip({}, -4.0, 2.0))",
        "(xp.matmul(x, ({} + y).T) @ y)",
        "(1.0 / (1.5 + xp.abs({})))",
    ]
)
binary = st.sampled_from(["({} + {})", "({} - {})", "({} * {})", "xp.maximum({}, {})", "xp.where(x > y, {}, {})"])
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(unary, inner).map(lambda t: t[0].format(t[1])),
        st.tuples(binary, inner, inner).map(lambda t: t[0].format(t[1], t[2])),
    ),
    max_leaves=8,
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(expressions, st.integers(0, 2**32 - 1))
def test_the_trace_bounds_the_error_of_any_expression(text: str, seed: int) -> None:
    scope: dict[str, Any] = {}
    exec(f"def fn(xp, x, y):\n    return ({text}) + 0.0 * x", scope)  # the tests' own text
    numbers = np.random.default_rng(seed)
    x, y = numbers.normal(size=(3, 4)), numbers.normal(size=(3, 4)) * 10.0 ** numbers.integers(-3, 3)
    with np.errstate(over="ignore", invalid="ignore"):
        report = check_step(
            scope["fn"], x, y, devices=["numpy", device(sum=added_up, matmul=product(slice(None, None, -1)))]
        )
    assert report.ok, f"{text}\n{report.findings}"


# -- faults -----------------------------------------------------------------------------------------------------------


def to_bits(x: np.ndarray, bits: int) -> np.ndarray:
    """float32 rounded to so many bits of mantissa, the leading one among them."""
    drop = 24 - bits
    words = np.ascontiguousarray(x).view(np.int32)
    return ((words + (1 << (drop - 1))) >> drop << drop).view(np.float32)


def coarse(bits: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda a, b: to_bits(a, bits) @ to_bits(b, bits)


def half(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.float16).astype(np.float32) @ b.astype(np.float16).astype(np.float32)


PRECISIONS = {"tf32": coarse(11), "bf16": coarse(8), "fp16": half}


@pytest.mark.parametrize("K", [32, 128, 512])
@pytest.mark.parametrize("claim", PRECISIONS)
def test_a_precision_passes_if_it_is_claimed_and_fails_if_not(claim: str, K: int) -> None:
    x, y = rng.normal(size=(20, K)), rng.normal(size=(K, 20)) / math.sqrt(K)
    how = {"devices": [device(matmul=PRECISIONS[claim])]}
    fn = lambda xp, x, y: xp.matmul(x, y)  # noqa: E731
    declared = check_step(fn, x, y, claim=claim, **how)
    assert declared.ok, declared.summary()
    assert declared[0].ratio > 1e-3
    assert not check_step(fn, x, y, **how).ok
    assert not check_step(fn, x, y, claim="fp32", **how).ok


def test_where_bf16_is_claimed_everything_may_be_rounded_to_it() -> None:
    def stored(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def rounding(*args: Any, **kwargs: Any) -> np.ndarray:
            args = tuple(to_bits(np.float32(a), 8) for a in args)
            return to_bits(np.asarray(function(*args, **kwargs), np.float32), 8)

        return rounding

    names = ("add", "multiply", "exp", "sum", "matmul", "tanh")
    bf16 = device(**{name: stored(getattr(np, name)) for name in names})

    def fn(xp: Any, x: Any) -> dict[str, Any]:
        z = xp.add(xp.matmul(x, x.T), 0.3)
        return {
            "sum": xp.sum(x, axis=1),
            "tanh": xp.tanh(xp.multiply(z, 0.1)),
            "exp": xp.exp(xp.multiply(x, 0.7)),
            "scaled": xp.multiply(x, 0.1),
        }

    assert check_step(fn, to_bits(V.astype(np.float32), 8), claim="bf16", devices=[bf16]).ok
    wrong = {f.tensor.partition(" ")[0] for f in check_step(fn, V, devices=[bf16]) if f.status == "wrong"}
    assert wrong == {"sum", "tanh", "exp", "scaled"}


def test_operands_that_underflow_in_fp16_pass_where_fp16_is_claimed() -> None:
    x = rng.uniform(1.0, 2.0, size=(4, 8)) * 2.0**-20
    fn = lambda xp, x: xp.matmul(x, x.T)  # noqa: E731
    assert check_step(fn, x, claim="fp16", devices=[device(matmul=half)]).ok
    assert not check_step(fn, x, claim="tf32", devices=[device(matmul=half)]).ok


FAULTS: dict[str, tuple[dict[str, Any], str, tuple[np.ndarray, ...], str]] = {
    "transposed": ({"matmul": lambda a, b: (a @ b).T}, "layer norm twice", (V[:, :9],), "transpose"),
    "sum for mean": ({"mean": np.sum}, "mean", (V,), "9 times the reference"),
    "row dropped": ({"sum": lambda x, **k: np.sum(x[:-1], **k)}, "sum", (V,), ""),
    "fast exp": ({"exp": lambda x: np.exp(x) * np.float32(1 + 2e-6)}, "exp", (V,), ""),
    "rough tanh": ({"tanh": lambda x: to_bits(np.tanh(x), 18)}, "tanh", (V,), ""),
    "relu below": ({"maximum": lambda a, b: np.maximum(a, b - np.float32(1e-3))}, "maximum", (V,), ""),
    "NaN": ({"exp": lambda x: np.where(x > 1.0, np.float32(np.nan), np.exp(x))}, "exp", (V,), "finite on one side"),
    "infinity": (
        {"exp": lambda x: np.where(x > 1.0, np.float32(np.inf), np.exp(x))},
        "exp",
        (V,),
        "finite on one side",
    ),
    "shape": ({"sum": lambda x, **k: np.sum(x, axis=0, keepdims=True)}, "sum", (V,), "its shape"),
    "wrong mask": ({"greater": lambda a, b: np.greater(a, b + np.float32(0.1))}, "greater", (V,), ""),
}
SHORT: dict[str, Callable[..., Any]] = {
    "layer norm twice": lambda xp, x: xp.matmul(x, 2.0 * x),
    "mean": lambda xp, x: xp.mean(x, axis=0),
    "sum": lambda xp, x: xp.sum(x, axis=0),
    "exp": lambda xp, x: xp.exp(x),
    "tanh": lambda xp, x: xp.tanh(x),
    "maximum": lambda xp, x: xp.maximum(x, 0.0),
    "greater": lambda xp, x: xp.greater(x, 0.0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_described(fault: str) -> None:
    own, fn, arrays, cause = FAULTS[fault]
    assert check_step(SHORT[fn], *arrays).ok
    report = check_step(SHORT[fn], *arrays, devices=[device(**own)], name=fn)
    assert not report.ok
    assert report.first is not None
    assert report.first.ratio > 1.0
    assert cause in report.first.cause
    assert (report.first.operation, report.first.tensor) == (fn, "out on numpy:changed")
    assert report.first.cause in report.summary()


def test_the_faulty_output_and_device_are_named() -> None:
    report = check_step(whole_step, W, A, B_, Y, devices=["numpy", device(log=lambda x: np.log(x) * np.float32(1.001))])
    wrong = [f for f in report if f.status == "wrong"]
    assert [(f.operation, f.tensor) for f in wrong] == [("whole_step", "J on numpy:changed")]
    outputs = ("P", "gradients[0]", "gradients[1]", "W", "J")
    assert [f.tensor for f in report] == [f"{o} on {d}" for d in ("numpy", "numpy:changed") for o in outputs]


def test_a_silent_float64_is_a_warning() -> None:
    (finding,) = check_step(lambda xp, x: x * 2.0, V, devices=[device(tanh=np.tanh)])
    assert finding.status == "ok"
    (finding,) = check_step(lambda xp, x: xp.exp(x) * 2.0, V, devices=[device(exp=lambda x: np.exp(x.astype(float)))])
    assert finding.status == "warning"
    assert finding.cause == "it was computed in float64, not in float32"
    (finding,) = check_step(lambda xp, x: x + np.float64(0.1), np.array([-0.1, 0.2]))
    assert finding.status == "warning"
    (finding,) = check_step(lambda xp, x: xp.maximum(x / xp.sqrt(3.0), 0.1), V)  # 0.1 is then not rounded to float32
    assert finding.status == "wrong"
    assert finding.cause == "it was computed in float64, not in float32"


def test_a_bound_that_decides_nothing_is_a_warning() -> None:
    def chaos(xp: Any, x: Any) -> Any:
        for _ in range(16):
            x = 3.9 * x * (1.0 - x)
        return x

    (finding,) = check_step(chaos, np.array([0.3]))
    assert finding.status == "warning"
    assert "check a shorter function" in finding.cause


# -- comparisons, special numbers -------------------------------------------------------------------------------------


def test_a_comparison_that_rounding_may_turn_is_not_judged() -> None:
    fn = lambda xp, x: (x + 0.1) - 0.1 > x  # noqa: E731
    turned = device()
    assert check_step(fn, V, devices=[turned]).ok
    step = lambda xp, x: xp.where((x * 3.0) / 3.0 >= x, 1.0, -1.0)  # noqa: E731
    assert check_step(step, V).ok
    other = device(where=lambda mask, a, b: np.where(mask, np.float32(b), np.float32(a)))
    assert check_step(step, V, devices=[other]).ok  # either side is allowed everywhere
    far = lambda xp, x: xp.where(x * 3.0 >= 0.0, 1.0, -1.0)  # noqa: E731
    assert not check_step(far, V, devices=[other]).ok


@pytest.mark.parametrize("combined", ["a & b", "a | b", "a ^ b", "~a", "xp.logical_and(a, b)", "xp.logical_or(b, a)"])
def test_combined_comparisons_are_open_only_where_they_matter(combined: str) -> None:
    x = np.array([0.1, 0.2, -5.0, 7.0])

    def fn(xp: Any, x: Any) -> Any:
        a, b = (x * 3.0) / 3.0 >= x, x > 1.0
        return eval(combined, {"a": a, "b": b, "xp": xp})  # the tests' own text

    assert check_step(fn, x).ok


def test_what_is_exact_must_be_equal_to_the_bit() -> None:
    fn = lambda xp, x: xp.maximum(-x, 0.0)[::-1]  # noqa: E731
    one_off = device(maximum=lambda a, b: np.nextafter(np.maximum(a, b), np.float32(9)))
    assert check_step(fn, V)[0].ratio == 0.0
    assert check_step(fn, V, devices=[one_off])[0].ratio == math.inf


def test_nothing_times_something_is_nothing() -> None:
    """A product with an exact 0 keeps its mask determined, so that a wrong one is seen."""
    fn = lambda xp, x: (x * 0.0 + xp.matmul(x * 0.0, x.T) @ x) > 0.0  # noqa: E731
    assert check_step(fn, V).ok
    assert not check_step(fn, V, devices=[device(matmul=lambda a, b: a @ b + 1.0)]).ok


def test_special_numbers_must_match() -> None:
    x = np.array([0.0, np.inf, -np.inf, np.nan, 1.0, 100.0])
    with np.errstate(all="ignore"):
        report = check_step(lambda xp, x: (xp.exp(x), xp.log(x), 1.0 / x, x - x, xp.sqrt(x)), x)
        assert report.ok, str(report.findings)
        hidden = device(exp=lambda x: np.nan_to_num(np.exp(x)))
        assert not check_step(lambda xp, x: xp.exp(x), x, devices=[hidden]).ok


def test_a_device_may_flush_subnormal_numbers() -> None:
    tiny = np.array([1e-40, -3e-41, 1e-30])
    flushing = device(maximum=lambda a, b: np.maximum(np.where(np.abs(a) < 1.1e-38, np.float32(0), a), b))
    assert check_step(lambda xp, x: xp.maximum(x, -1.0), tiny, devices=[flushing]).ok
    assert not check_step(
        lambda xp, x: xp.maximum(x, -1.0), 1e30 * tiny, devices=[device(maximum=lambda a, b: a * 0)]
    ).ok


def test_what_overflows_on_the_device_overflows_in_the_reference() -> None:
    with np.errstate(all="ignore"):
        report = check_step(lambda xp, x: xp.exp(x) * 1e-30, np.array([80.0, 90.0, 100.0]))
    assert report.ok
    assert report[0].ratio <= 1.0


# -- what cannot be judged --------------------------------------------------------------------------------------------


def assigning(xp: Any, x: Any) -> Any:
    x[0] = 1.0
    return x


UNTRACEABLE: dict[str, tuple[Callable[..., Any], str]] = {
    "unknown": (lambda xp, x: xp.sort(x, axis=0), "xp.sort"),
    "numpy": (lambda xp, x: np.cumsum(x), "this function|NumPy"),
    "number": (lambda xp, x: x * float(x[0, 0]), "Python number"),
    "branch": (lambda xp, x: x if xp.sum(x * 0.1 - 0.1 * x) > 0.0 else -x, "branch on a comparison"),
    "method": (lambda xp, x: x.cumsum(), r"\.cumsum"),
    "assignment": (assigning, "assignment"),
    "dtype": (lambda xp, x: xp.astype(x, xp.float64) * 0.1, "float64 inside"),
    "integers": (lambda xp, x: xp.astype(x, xp.int32), "a conversion to int32"),
    "power": (lambda xp, x: 2.0 ** xp.abs(x) ** xp.abs(x), "power|this function"),
    "division": (lambda xp, x: 1.0 / (x * 3.0 / 3.0 - x + 1e-9), "whose bound is infinite"),
    "linalg": (lambda xp, x: xp.linalg.norm(x), "xp.linalg"),
    "linspace": (lambda xp, x: x[0, 0] * xp.linspace(0.0, 1.0, 5), "xp.linspace"),
}


@pytest.mark.parametrize("what", UNTRACEABLE)
def test_what_the_trace_cannot_follow_is_one_line_that_asks_for_a_tolerance(what: str) -> None:
    fn, said = UNTRACEABLE[what]
    with pytest.raises(Untraceable, match=said) as raised:
        check_step(fn, V)
    message = str(raised.value)
    assert "\n" not in message
    assert "pass tolerance=" in message
    assert isinstance(raised.value, ConfigError)


def test_a_stated_tolerance_takes_the_place_of_the_trace() -> None:
    fn = lambda xp, x: xp.sort(x, axis=0) * 0.1  # noqa: E731
    report = check_step(fn, V, tolerance=1e-6)
    assert report.ok
    assert 0.01 < report[0].ratio <= 1.0
    assert not check_step(fn, V, tolerance=1e-9).ok
    near_zero = lambda xp, x: xp.sort(x - x + 1e-9, axis=0)  # noqa: E731
    off = device(sort=lambda x, axis: np.sort(x, axis=axis) + np.float32(1e-8))
    assert not check_step(near_zero, V, tolerance=1e-6, devices=[off]).ok
    assert check_step(near_zero, V, tolerance=(1e-6, 1e-7), devices=[off]).ok


def test_an_error_of_the_function_itself_is_its_own() -> None:
    def broken(xp: Any, x: Any) -> Any:
        raise KeyError("my own")

    with pytest.raises(KeyError, match="my own"):
        check_step(broken, V)


def test_settings_that_do_not_fit_are_one_line() -> None:
    fn = SHORT["exp"]
    for wrong, said in (
        ({"claim": "fp8"}, "unknown claim 'fp8'"),
        ({"dtype": "float16"}, "dtype must be float32 or float64"),
        ({"claim": "tf32", "dtype": "float64"}, "claim 'tf32' is about float32 arrays"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_step(fn, V, **wrong)
    with pytest.raises(DeviceError, match="no device"):
        check_step(fn, V, devices=["nunpy"])
    with pytest.raises(DataError, match="arrays of real numbers"):
        check_step(fn, np.array(["a"]))
    with pytest.raises(ConfigError, match="errors of mine's functions are not known"):
        check_step(fn, V, devices=[Backend("mine", np)])
    assert check_step(fn, V, claim="fp64")[0].status == "ok"


@pytest.mark.skipif(importlib.util.find_spec("jax") is not None, reason="jax is installed here")
def test_a_missing_package_is_named_with_its_cure() -> None:
    with pytest.raises(MissingDependencyError, match="pip install jax"):
        check_step(SHORT["exp"], V, devices=["jax"])


def test_other_outputs_than_the_reference_has_are_an_error() -> None:
    def fn(xp: Any, x: Any) -> Any:
        return {"a": x} if isinstance(x, np.ndarray) else {"b": x}

    with pytest.raises(DataError, match="numpy returns a where the reference returns b"):
        check_step(fn, V)


# -- the report -------------------------------------------------------------------------------------------------------


def test_the_report_is_one_of_a_check_and_can_be_kept(tmp_path: Path) -> None:
    from safetensors import safe_open

    report = check_step(whole_step, W, A, B_, Y, devices=["numpy", device(exp=lambda x: np.exp(x) * np.float32(1.01))])
    assert isinstance(report, FunctionReport)
    assert isinstance(report, Report)
    assert list(report) == report.findings
    assert len(report) == 10
    assert report[-1] == report.findings[-1]
    assert report.about == {
        "device": "numpy, numpy:changed",
        "kernels": "whole_step",
        "dtype": "float32",
        "claim": "fp32",
    }
    assert report.table().row_count == 10
    told = json.loads(report.to_json())
    assert told["ok"] is report.ok
    report.save(tmp_path / "case.safetensors")
    with safe_open(tmp_path / "case.safetensors", "numpy") as case:
        assert json.loads(case.metadata()["report"]) == told
        np.testing.assert_array_equal(case.get_tensor("input.0"), W.astype(np.float32))
        np.testing.assert_array_equal(case.get_tensor("input.1"), A.astype(np.float32))
        for part in ("got", "want", "bound"):
            whole = case.get_tensor(f"P on numpy:changed.{part}")
            np.testing.assert_array_equal(whole, getattr(report.comparisons["P on numpy:changed"], part))
    with pytest.raises(CheckpointError, match="cannot be written"):
        report.save(tmp_path / "no folder" / "case.safetensors")


def test_the_report_has_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    exp = device(exp=lambda x: np.exp(x) * np.float32(1.01))
    for devices in (["numpy"], [exp]):
        check_step(whole_step, W, A, B_, Y, devices=devices).plot(tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_inputs_of_any_memory_order_are_kept_as_they_are(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    check_step(lambda xp, x: x * 2.0, V.T).save(tmp_path / "case")
    np.testing.assert_array_equal(load_file(tmp_path / "case")["input.0"], V.T.astype(np.float32))


def test_a_function_that_returns_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="returns"):
        check_step(lambda xp, x: {}, V)


def test_the_longest_sum_is_reported() -> None:
    by_name = {f.tensor.partition(" ")[0]: f.k for f in check_step(whole_step, W, A, B_, Y)}
    assert by_name == {"P": 14, "gradients[0]": 23, "gradients[1]": 23, "W": 23, "J": 23}


# -- sums that overflow on the way ------------------------------------------------------------------------------------

OVERFLOWING: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda xp, x: xp.sum(x, axis=1),
    "mean": lambda xp, x: xp.mean(x, axis=1),
    "mean of one sign": lambda xp, x: xp.mean(xp.abs(x), axis=1),
    "product": lambda xp, x: (x @ xp.ones_like(x).T)[:, 0],
    "squashed": lambda xp, x: xp.tanh(xp.sum(x, axis=1)),
    "times nothing": lambda xp, x: 0.0 * xp.sum(x, axis=1),
    "one over it": lambda xp, x: 1.0 / xp.sum(x, axis=1),
    "sign": lambda xp, x: xp.sign(xp.sum(x, axis=1)),
    "exponential": lambda xp, x: xp.exp(-xp.abs(xp.sum(x, axis=1))),
    "root": lambda xp, x: xp.sqrt(xp.abs(xp.sum(x, axis=1))),
}


@pytest.mark.parametrize("name", OVERFLOWING)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("device", DEVICES)
def test_where_a_part_of_a_sum_may_overflow_nobody_is_accused_and_the_other_rows_are_judged(
    device: str, dtype: str, name: str
) -> None:
    top = float(np.finfo(dtype).max)
    for order in ([0.9, 0.9, -0.9, -0.8], [0.9, -0.9, 0.9, -0.8], [-0.6, 0.6, -0.6, 0.5]):
        x = np.array([order, [0.3, -0.1, 0.2, 0.05]]) * [[top], [1.0]]
        with np.errstate(all="ignore"):
            report = check_step(OVERFLOWING[name], x, devices=[device], dtype=dtype)
        assert report.ok, report.findings
        assert "1 entries are not compared" in report.findings[0].cause


def test_a_sum_that_overflows_in_any_order_is_infinite() -> None:
    with np.errstate(all="ignore"):
        assert check_step(lambda xp, x: xp.sum(x), np.full(4, 3e38)).findings[0].status == "ok"
        clamped = device(sum=lambda x, axis=None: np.float32(3.4e38))
        assert check_step(lambda xp, x: xp.sum(x), np.full(4, 3e38), devices=[clamped]).findings[0].status == "wrong"


# -- the table of ulps ------------------------------------------------------------------------------------------------


def arguments(dtype: str) -> np.ndarray:
    """Numbers of every binade, and many where the functions bend."""
    kind = np.dtype(dtype)
    numbers = np.random.default_rng(11)
    any_bits = np.frombuffer(numbers.bytes(150_000 * kind.itemsize), kind)
    near = np.concatenate([numbers.uniform(-20.0, 20.0, 100_000), numbers.uniform(-1.0, 1.0, 100_000)]).astype(kind)
    x = np.concatenate([any_bits[np.isfinite(any_bits)], near])
    return x[np.abs(x) >= np.finfo(kind).smallest_normal]


DOMAIN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log": np.abs,
    "sqrt": np.abs,
    "log1p": lambda x: x[x > -1.0],
    "sin": lambda x: x[np.abs(x) < 1e4],
    "cos": lambda x: x[np.abs(x) < 1e4],
}


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "tanh", "sqrt", "sin", "cos"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("device", DEVICES)
def test_the_table_of_ulps_covers_what_is_measured(device: str, dtype: str, name: str) -> None:
    x = DOMAIN.get(name, lambda x: x)(arguments(dtype))
    claim = "fp64" if dtype == "float64" else "fp32"
    own = arithmetic_of(device.partition(":")[0], claim).ulps[name]
    fn = lambda xp, x: getattr(xp, name)(x)  # noqa: E731
    with np.errstate(all="ignore"):
        report = check_step(fn, x, devices=[device], dtype=dtype)
    assert report.ok, f"{own} ulp is not enough: {report.findings}"
