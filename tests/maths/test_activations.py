"""Activations: forward against 40 digits, vjp against the complex step, both on every namespace."""

from __future__ import annotations

import math

import array_api_strict
import mpmath as mp
import numpy as np
import pytest
from support.real_part import REAL_PART, gradient, slope
from support.strict import DEVICES, to_host, to_strict

from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.activations import ACTIVATIONS, Activation, get_activation

NAMES = list(ACTIVATIONS)
UNIT = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
# Away from the kinks at 0, dense where the functions bend, and out to where e^|Z| nearly overflows float64.
GRID = np.concatenate(
    [np.linspace(-30.0, 30.0, 1200), [-700.0, -300.0, -90.0, -1e-8, -1e-300, 1e-300, 1e-8, 90.0, 700.0]]
)
KINKED = ("relu", "leaky_relu", "elu")
VARIANTS = [*NAMES, {"name": "leaky_relu", "slope": 0.2}, {"name": "elu", "alpha": 0.5}]


def column_batch(dtype: str = "float64") -> np.ndarray:
    """(5, 7) logits, some large."""
    Z = np.random.default_rng(5).normal(size=(5, 7)) * 3.0
    Z[:, 1] *= 10.0
    Z[:, 2] = [700.0, -700.0, 0.5, 699.5, 1.0]
    if dtype != "float64":
        Z = np.clip(Z, -80.0, 80.0)
    return Z.astype(dtype)


@pytest.mark.parametrize("spec", [v for v in VARIANTS if v != "softmax"], ids=str)
def test_vjp_is_dA_times_the_complex_step_derivative(spec: object) -> None:
    act = get_activation(spec)
    dA = np.random.default_rng(1).normal(size=GRID.shape)
    A = act.forward(np, GRID)
    got, want = act.vjp(np, dA, GRID, A), dA * slope(act.forward, GRID)
    assert np.all(np.isfinite(got))
    # Derivatives are sums of terms of size at most max(1, |g'|): that is the scale of their rounding.
    assert np.all(np.abs(got - want) <= 1e-13 * np.maximum(np.abs(dA), np.abs(want)))


def test_softmax_vjp_is_the_gradient_of_the_weighted_sum() -> None:
    act, Z = ACTIVATIONS["softmax"], column_batch()
    dA = np.random.default_rng(2).normal(size=Z.shape)
    want = gradient(lambda xp, z: dA * act.forward(xp, z), Z)
    assert np.max(np.abs(act.vjp(np, dA, Z, act.forward(np, Z)) - want)) <= 1e-13 * np.max(np.abs(dA))


@pytest.mark.parametrize(
    ("spec", "at_zero"),
    [
        ("relu", 0.0),
        ("leaky_relu", 0.01),
        ({"name": "leaky_relu", "slope": 0.2}, 0.2),
        ("elu", 1.0),
        ({"name": "elu", "alpha": 0.5}, 0.5),
        ("selu", 1.7580993408473766),
    ],
    ids=str,
)
def test_the_kink_at_zero_takes_the_left_derivative(spec: object, at_zero: float) -> None:
    act = get_activation(spec)
    Z = np.array([[0.0, -0.0]])
    A = act.forward(np, Z)
    assert np.array_equal(A, [[0.0, 0.0]])
    assert np.array_equal(act.vjp(np, np.full_like(Z, 3.0), Z, A), 3.0 * np.full_like(Z, at_zero))


# name: (Z, g(Z), g'(Z)), worked out by hand from sigmoid(log 3) = 3/4, tanh(log 3) = (9 - 1)/(9 + 1) = 4/5, ...
LOG3 = math.log(3.0)
CLOSED = {
    "identity": (-2.5, -2.5, 1.0),
    "sigmoid": (LOG3, 0.75, 3.0 / 16.0),
    "tanh": (LOG3, 0.8, 0.36),
    "relu": (2.5, 2.5, 1.0),
    "leaky_relu": (-2.0, -0.02, 0.01),
    "elu": (-LOG3, -2.0 / 3.0, 1.0 / 3.0),
    "selu": (-LOG3, -2.0 / 3.0 * 1.7580993408473766, 1.7580993408473766 / 3.0),
    "mish": (math.log(2.0), 0.8 * math.log(2.0), 0.8 + 0.24 * math.log(2.0)),
    "gelu": (1.0, 0.8413447460685429, 1.0833154705876864),  # Phi(1), Phi(1) + phi(1)
    "gelu_tanh": (0.0, 0.0, 0.5),
    "silu": (LOG3, 0.75 * LOG3, 0.75 + 3.0 / 16.0 * LOG3),
    "softplus": (LOG3, math.log(4.0), 0.75),
    "exponential": (LOG3, 3.0, 3.0),
}


@pytest.mark.parametrize("name", CLOSED)
def test_values_worked_out_by_hand(name: str) -> None:
    z, a, derivative = CLOSED[name]
    act, Z = ACTIVATIONS[name], np.array([[z]])
    A = act.forward(np, Z)
    assert A[0, 0] == pytest.approx(a, rel=4e-16, abs=1e-17)
    assert act.vjp(np, np.array([[2.0]]), Z, A)[0, 0] == pytest.approx(2.0 * derivative, rel=1e-15)


def test_softmax_by_hand() -> None:
    Z = np.log(np.array([[1.0, 3.0], [1.0, 1.0], [2.0, 4.0]]))
    A = ACTIVATIONS["softmax"].forward(np, Z)
    assert np.allclose(A, [[0.25, 0.375], [0.25, 0.125], [0.5, 0.5]], rtol=1e-15)
    # dA = first row's indicator: dZ[k] = A[k] ([k = 0] - A[0]).
    dA = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    want = [[0.1875, 0.234375], [-0.0625, -0.046875], [-0.125, -0.1875]]
    assert np.allclose(ACTIVATIONS["softmax"].vjp(np, dA, Z, A), want, rtol=1e-14)


# The formulas of the papers at 40 digits, and the bound of the float result in units of u = 2^-p. Each transcendental
# function is allowed 4 ulp (8 u), each other operation 1 u; relative to |A| unless a cancellation makes it absolute.
EXACT = {
    "identity": (lambda z: z, lambda z, a: 0.0),
    "relu": (lambda z: max(z, mp.mpf(0)), lambda z, a: 0.0),
    "leaky_relu": (lambda z: z if z > 0 else z * mp.mpf("0.01"), lambda z, a: 2.0 * abs(a)),
    "sigmoid": (lambda z: 1 / (1 + mp.exp(-z)), lambda z, a: 18.0 * a),
    "tanh": (mp.tanh, lambda z, a: 8.0 * abs(a)),
    "elu": (lambda z: z if z > 0 else mp.expm1(z), lambda z, a: 9.0 * abs(a)),
    "selu": (
        lambda z: (
            mp.mpf("1.0507009873554804934193349852946")
            * (z if z > 0 else mp.mpf("1.6732632423543772848170429916717") * mp.expm1(z))
        ),
        lambda z, a: 10.0 * abs(a),
    ),
    "mish": (lambda z: z * mp.tanh(mp.log1p(mp.exp(z))), lambda z, a: 28.0 * abs(a)),
    # 1 + erf cancels for Z < 0: Phi carries an absolute error, here 4 ulp (erf, its argument, the sum).
    "gelu": (lambda z: z * mp.ncdf(z), lambda z, a: 4.0 * abs(z) + abs(a)),
    "gelu_tanh": (
        lambda z: z / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (z + mp.mpf("0.044715") * z**3))),
        lambda z, a: 10.0 * abs(z),
    ),
    "silu": (lambda z: z / (1 + mp.exp(-z)), lambda z, a: 19.0 * abs(a)),
    "softplus": (lambda z: mp.log1p(mp.exp(z)), lambda z, a: 18.0 * a),
    "exponential": (mp.exp, lambda z, a: 8.0 * a),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EXACT)
def test_forward_against_forty_digits(name: str, dtype: str) -> None:
    formula, bound = EXACT[name]
    Z = np.concatenate([np.linspace(-20.0, 20.0, 161), [-80.0, -1.03, -1e-4, 1e-4, 0.97, 80.0]]).astype(dtype)
    A = ACTIVATIONS[name].forward(np, Z)
    assert A.dtype == dtype
    u, tiny = UNIT[dtype], float(np.finfo(dtype).smallest_normal)
    with mp.workdps(40):
        for z, a in zip(Z.tolist(), A.tolist(), strict=True):
            want = formula(mp.mpf(z))
            assert abs(mp.mpf(a) - want) <= u * bound(z, float(want)) + tiny, (z, a, float(want))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_against_forty_digits(dtype: str) -> None:
    Z = column_batch(dtype)
    A = ACTIVATIONS["softmax"].forward(np, Z)
    n, u, tiny = Z.shape[0], UNIT[dtype], float(np.finfo(dtype).smallest_normal)
    with mp.workdps(40):
        for j in range(Z.shape[1]):
            z = [mp.mpf(float(v)) for v in Z[:, j]]
            total = mp.fsum(mp.exp(v) for v in z)
            for k in range(n):
                want = mp.exp(z[k]) / total
                # Z - max is rounded once (|Z - max| u in e), exp 8 u, the sum (n + 8) u, the division 1 u.
                bound = u * float(want) * (2.0 * float(max(z) - min(z)) + n + 17)
                assert abs(mp.mpf(float(A[k, j])) - want) <= bound + tiny


def test_gelu_error_is_within_two_ulp_of_Z_everywhere() -> None:
    """gelu's absolute error is bounded by 4 u |Z| (2 ulp of Z): relative accuracy is lost only where A is tiny."""
    for dtype in ("float32", "float64"):
        Z = np.linspace(-9.0, 9.0, 3001).astype(dtype)
        A = ACTIVATIONS["gelu"].forward(np, Z).astype(float)
        with mp.workdps(40):
            want = np.array([float(mp.mpf(z) * mp.ncdf(z)) for z in Z.astype(float).tolist()])
        assert np.all(np.abs(A - want) <= UNIT[dtype] * (4.0 * np.abs(Z.astype(float)) + np.abs(want)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_dtype_and_shape_are_kept_and_nothing_is_shared(spec: object, dtype: str) -> None:
    act = get_activation(spec)
    Z = np.random.default_rng(3).normal(size=(4, 3)).astype(dtype)
    before = Z.copy()
    A = act.forward(np, Z)
    dZ = act.vjp(np, Z, Z, A)
    assert A.dtype == dZ.dtype == dtype
    assert A.shape == dZ.shape == Z.shape
    assert not np.shares_memory(A, Z)
    assert not np.shares_memory(dZ, Z)
    assert np.array_equal(Z, before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_array_api_strict_gives_numpys_bits_on_its_device(spec: object, dtype: str, device: str) -> None:
    act = get_activation(spec)
    Z = np.clip(column_batch(dtype), -80.0, 80.0)
    dA = np.random.default_rng(4).normal(size=Z.shape).astype(dtype)
    Zs = to_strict(Z, device)
    As = act.forward(array_api_strict, Zs)
    dZs = act.vjp(array_api_strict, to_strict(dA, device), Zs, As)
    A = act.forward(np, Z)
    for strict, plain in ((As, A), (dZs, act.vjp(np, dA, Z, A))):
        here = to_host(strict, device)
        assert here.dtype == dtype
        assert np.array_equal(here, plain)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_softmax_columns_sum_to_one_and_ignore_a_shift(dtype: str) -> None:
    act, Z = ACTIVATIONS["softmax"], column_batch(dtype)
    A = act.forward(np, Z)
    assert np.all(A >= 0.0)
    n = Z.shape[0]
    assert np.all(np.abs(np.sum(A.astype(float), axis=0) - 1.0) <= 2 * n * UNIT[dtype])
    # Small integers shifted by an integer stay exact, so every bit must agree.
    whole = np.arange(12).reshape(4, 3).astype(dtype)
    assert np.array_equal(act.forward(np, whole + 64), act.forward(np, whole))
    # Columns are examples: each is normalised on its own.
    assert np.array_equal(act.forward(np, Z[:, 1:2]), A[:, 1:2])


# g at -1e5, -700, 700 and 1e5.
RECTIFIED = (0.0, 0.0, 700.0, 1e5)
LIMITS = {
    "identity": (-1e5, -700.0, 700.0, 1e5),
    "sigmoid": (0.0, 0.0, 1.0, 1.0),
    "tanh": (-1.0, -1.0, 1.0, 1.0),
    "relu": RECTIFIED,
    "leaky_relu": (-1000.0, -7.0, 700.0, 1e5),
    "elu": (-1.0, -1.0, 700.0, 1e5),
    "selu": (-1.7580993408473766, -1.7580993408473766, 700 * 1.0507009873554805, 1e5 * 1.0507009873554805),
    "mish": RECTIFIED,
    "gelu": RECTIFIED,
    "gelu_tanh": RECTIFIED,
    "silu": RECTIFIED,
    "softplus": RECTIFIED,
    "softmax": (0.0, 0.0, 1.0, 1.0),
}


@pytest.mark.parametrize("name", [n for n in NAMES if n != "exponential"])
def test_saturation_is_finite_and_right(name: str) -> None:
    """At +-700 and +-1e5 nothing overflows (warnings are errors), and the limits are the functions' own."""
    act = ACTIVATIONS[name]
    Z = np.array([[-1e5, -700.0, 700.0, 1e5], [0.0, 0.0, 0.0, 0.0]])
    A = act.forward(np, Z)
    g = act.vjp(np, np.ones_like(Z), Z, A)
    assert np.all(np.isfinite(A))
    assert np.all(np.isfinite(g))
    if name in LIMITS:
        assert np.allclose(A[0], LIMITS[name], rtol=1e-15, atol=1e-300)


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_not_hidden(name: str) -> None:
    Z = np.array([[np.nan, 1.0]])
    A = ACTIVATIONS[name].forward(np, Z)
    assert np.isnan(A[0, 0])
    assert np.isfinite(A[0, 1])


@pytest.mark.parametrize(("dtype", "large"), [("float16", 300.0), ("float32", 1e20), ("float64", 1e160)])
@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_the_squares_inside_may_overflow_without_harm(name: str, dtype: str, large: float) -> None:
    act, Z = ACTIVATIONS[name], np.array([[large, -large]], dtype)
    with np.errstate(over="ignore"):
        A = act.forward(np, Z)
        assert np.array_equal(A, np.array([[large, 0.0]], dtype))
        assert np.array_equal(act.vjp(np, np.ones_like(Z), Z, A), [[1.0, 0.0]])


@pytest.mark.parametrize(("dtype", "large"), [("float16", 300.0), ("float32", 1e20), ("float64", 1e160)])
def test_gelu_tanh_where_the_square_overflows(dtype: str, large: float) -> None:
    act, Z = ACTIVATIONS["gelu_tanh"], np.array([[large, -large]], dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        A = act.forward(np, Z)
        assert np.array_equal(act.vjp(np, np.ones_like(Z), Z, A), [[1.0, 0.0]])


def test_output_only_marks_what_couples_units_or_is_unbounded() -> None:
    assert {n for n, a in ACTIVATIONS.items() if a.output_only} == {"softmax", "exponential"}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_keys_and_specs_go_round(name: str) -> None:
    act = get_activation(name)
    assert act.name == name
    assert get_activation(act.spec()) == act
    assert get_activation(act) is act


def test_parameters_are_taken_and_given_back() -> None:
    act = get_activation({"name": "leaky_relu", "slope": 1})
    assert act.spec() == {"name": "leaky_relu", "slope": 1.0}
    assert isinstance(act, Activation)
    assert get_activation(act.spec()) == act
    assert get_activation("elu").spec() == {"name": "elu", "alpha": 1.0}
    assert get_activation("tanh").spec() == "tanh"
    assert np.array_equal(get_activation({"name": "elu", "alpha": 2.0}).forward(REAL_PART, np.array([3.0])), [3.0])


@pytest.mark.parametrize("name", NAMES)
def test_the_functions_own_defaults_are_the_registrys(name: str) -> None:
    act, Z = ACTIVATIONS[name], column_batch("float32").astype(float)
    A = act.forward(np, Z)
    assert np.array_equal(act.forward_function(np, Z), A)
    assert np.array_equal(act.vjp_function(np, Z, Z, A), act.vjp(np, Z, Z, A))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("rleu", "unknown activation 'rleu' (did you mean 'relu'?)"),
        ({"slope": 0.1}, "the activation must be a name, a mapping with a name"),
        (None, "the activation must be a name, a mapping with a name"),
        ({"name": "relu", "slope": 0.1}, "'relu' has no parameter 'slope'; it takes none"),
        ({"name": "elu", "slope": 0.1}, "'elu' has no parameter 'slope'; it takes alpha"),
        ({"name": "elu", "alpha": "1"}, "alpha must be a finite number, got '1'"),
        ({"name": "elu", "alpha": True}, "alpha must be a finite number, got True"),
        ({"name": "elu", "alpha": math.nan}, "alpha must be a finite number, got nan"),
        ({"name": "leaky_relu", "slope": math.inf}, "slope must be a finite number, got inf"),
    ],
)
def test_bad_specs_are_refused_in_one_line(spec: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get_activation(spec)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
