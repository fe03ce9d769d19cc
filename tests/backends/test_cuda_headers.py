"""The formulas of the CUDA kernels, compiled by g++ and called number by number: against published answers, maths in
float64 and the bounds derived for each. (The kernels themselves are held to the laws, emulated: ``tests/laws``.)
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from support.emulated_cuda import compiled, host_text, obstacle
from support.judging import ratio

from backprop_gpu.backends import formula_ids
from backprop_gpu.maths import regularization
from backprop_gpu.maths.activations import Activation, get_activation
from backprop_gpu.maths.losses import Loss, get_loss
from backprop_gpu.maths.optimizers import Optimizer, get_optimizer
from backprop_gpu.maths.random import philox_words
from backprop_gpu.parity.claims import bounds_of
from backprop_gpu.parity.oracle import layers, losses
from backprop_gpu.parity.oracle.bounds import Bounded

OBSTACLE = obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))

# The headers' functions, over arrays.
LOOPS = r"""
using layers_ns::real;
extern "C" void philox(const unsigned* counter, const unsigned* key, unsigned* words) {
    const unsigned* c = counter;
    layers_ns::philox::Words w = layers_ns::philox::words(c[0], c[1], c[2], c[3], key[0], key[1]);
    words[0] = w.w0, words[1] = w.w1, words[2] = w.w2, words[3] = w.w3;
}
extern "C" void bfloat16(const float* x, unsigned short* out, long long n) {
    for (long long i = 0; i < n; ++i) out[i] = data_ns::bfloat16(x[i]);
}
extern "C" void activation(long long id, double p, const real* z, const real* dA, real* a, real* d, long long n) {
    for (long long i = 0; i < n; ++i) {
        a[i] = layers_ns::activate(id, real(p), z[i]);
        d[i] = layers_ns::activate_vjp(id, real(p), dA[i], z[i], a[i]);
    }
}
#define LOOP_LOSS(name, Loss) \
    case outputs_ns::name##_id: \
        term[i] = outputs_ns::losses::Loss::value(z[i], y[i], real(p), real(1 - p)); \
        slope[i] = outputs_ns::losses::Loss::delta(z[i], y[i], real(p), real(1 - p)); \
        break;
extern "C" void loss(long long id, double p, const real* z, const real* y, real* term, real* slope, long long n) {
    for (long long i = 0; i < n; ++i)
        switch (id) { LOSSES(LOOP_LOSS) }
}
"""


def library(dtype: str) -> ctypes.CDLL:
    return compiled(host_text(dtype, LOOPS))


def at(x: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.ctypes.data)


def over(dtype: str, name: str, code: int, p: float, *inputs: np.ndarray) -> list[np.ndarray]:
    """What a loop of LOOPS makes of two inputs: two outputs."""
    given = [np.array(x, dtype) for x in inputs]
    outs = [np.full_like(given[0], np.nan) for _ in range(2)]
    size = ctypes.c_longlong(given[0].size)
    getattr(library(dtype), name)(ctypes.c_longlong(code), ctypes.c_double(p), *(at(x) for x in (*given, *outs)), size)
    return outs


def words(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    out = np.zeros(4, np.uint32)
    given = np.array(counter, np.uint32), np.array(key, np.uint32)
    library("float32").philox(*(at(x) for x in (*given, out)))
    return [int(x) for x in out]


def numbers(dtype: str) -> np.ndarray:
    """Ordinary ones, every magnitude, both zeros, far out."""
    rng = np.random.default_rng(0)
    tiny, huge = (np.log10(float(x)) for x in (np.finfo(dtype).smallest_normal, np.finfo(dtype).max))
    sizes = np.concatenate([np.logspace(tiny, 0.4 * huge, 400), [88.5, 89.0, 104.0, 710.0, 746.0, 1e-40]])
    return np.concatenate([rng.normal(0.0, 3.0, 2000), sizes, -sizes, [0.0, -0.0]]).astype(dtype)


def as_given(spec: Any, dtype: str) -> Any:
    """A formula's parameters as the kernels get them: rounded once to the working dtype."""
    if isinstance(spec, str):
        return spec
    return {key: x if isinstance(x, str) else np.asarray(x, dtype).astype(float).tolist() for key, x in spec.items()}


# --- Philox --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [  # kat_vectors of Random123, philox 4x32 with 10 rounds
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_published_answers(counter: tuple[int, ...], key: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    assert tuple(words(counter, key)) == wanted


def test_words_are_those_of_maths() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        counter, key = rng.integers(0, 2**32, 4), rng.integers(0, 2**32, 2)
        seed = int(key[0]) + (int(key[1]) << 32)
        wanted = [int(x[0]) for x in philox_words(np, seed, [np.array([c]) for c in counter])]
        assert words(tuple(counter), tuple(key)) == wanted


# --- bfloat16 ------------------------------------------------------------------------------------------------------


def test_bfloat16_is_the_nearest_and_even_at_ties() -> None:
    rng = np.random.default_rng(8)
    bits = np.concatenate([rng.integers(0, 2**32, 20_000), np.arange(2**15, 2**17, 2**13), [0x7F7FFFFF, 0xFF7FFFFF]])
    ties = (rng.integers(0, 2**16, 500) << 16) + 0x8000
    x = np.concatenate([bits, ties]).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)])
    out = np.zeros(x.size, np.uint16)
    library("float32").bfloat16(at(x), at(out), ctypes.c_longlong(x.size))
    got, nan = (out.astype(np.uint32) << 16).view(np.float32), np.isnan(x)
    assert nan.sum() > 50
    assert np.isnan(got[nan]).all()
    got, wide = got[~nan].astype(np.float64), x[~nan].astype(np.float64)
    with np.errstate(all="ignore"):
        # 8 significant bits; below 2^-126 the spacing stays that of the smallest normal numbers
        spacing = np.exp2(np.maximum(np.floor(np.log2(np.abs(wide))), -126.0) - 7.0)
        wanted = np.where(np.isfinite(wide) & (wide != 0.0), np.rint(wide / spacing) * spacing, wide)
    wanted[np.abs(wanted) >= 2.0**128] = np.copysign(np.inf, wanted[np.abs(wanted) >= 2.0**128])
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(wide))


# --- activations ---------------------------------------------------------------------------------------------------

GIVEN_ACTIVATIONS = [
    *(get_activation(name) for name in formula_ids.ACTIVATION_IDS),
    get_activation({"name": "leaky_relu", "slope": 0.2}),
    get_activation({"name": "elu", "alpha": 0.6}),
]


@pytest.mark.parametrize("dtype", formula_ids.DTYPES)
@pytest.mark.parametrize("g", GIVEN_ACTIVATIONS, ids=lambda g: str(g.spec()))
def test_activations(g: Activation, dtype: str) -> None:
    """Value and vjp against maths in float64, within the bounds derived for their operations."""
    B, z = bounds_of("native", "fp64" if dtype == "float64" else "fp32"), numbers(dtype)
    dA = np.random.default_rng(2).standard_normal(z.size).astype(dtype)
    p = next((value for _, value in g.parameters), 0.0)
    a, d = over(dtype, "activation", formula_ids.ACTIVATION_IDS[g.name], p, z, dA)
    wide, rounded = z.astype(np.float64), as_given(g.spec(), dtype)
    exactly = get_activation(rounded)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for got, bound, exact in (
            (a, layers.activation(B, g.name, dict(g.parameters), B.given(z)), exactly.forward(np, wide)),
            (
                d,
                layers.activation_vjp(B, g.name, dict(g.parameters), B.given(dA), B.given(z), B.given(a)),
                exactly.vjp(np, dA.astype(np.float64), wide, a.astype(np.float64)),
            ),
        ):
            assert ratio(got, bound) <= 1.0
            within = np.isfinite(bound.v)  # where float32 overflows, float64 does not
            assert ratio(got[within], Bounded(B, exact[within], e=bound.errors()[within])) <= 1.0


@pytest.mark.parametrize("dtype", formula_ids.DTYPES)
@pytest.mark.parametrize("g", GIVEN_ACTIVATIONS, ids=lambda g: str(g.spec()))
def test_nan_and_infinities_are_those_of_maths(g: Activation, dtype: str) -> None:
    z = np.array([np.nan, np.inf, -np.inf, 1.0], dtype)
    one = np.ones_like(z)
    p = next((value for _, value in g.parameters), 0.0)
    a, d = over(dtype, "activation", formula_ids.ACTIVATION_IDS[g.name], p, z, one)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(a, g.forward(np, z), rtol=1e-6)
        np.testing.assert_allclose(d, g.vjp(np, one, z, a), rtol=1e-6)


# --- losses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", formula_ids.DTYPES)
@pytest.mark.parametrize("loss", [*formula_ids.SEPARATE_LOSSES, "huber-0.3"])
def test_losses(loss: str, dtype: str) -> None:
    """One output's term and slope: with one output they are the loss itself."""
    name, _, threshold = loss.partition("-")
    chosen: Loss = get_loss({"name": name, "threshold": float(threshold)} if threshold else name)
    B, z = bounds_of("native", "fp64" if dtype == "float64" else "fp32"), numbers(dtype)
    rng = np.random.default_rng(3)
    y = {"binary_cross_entropy": rng.random(z.size), "poisson": rng.poisson(2.0, z.size)}.get(name, rng.normal(z))
    y = np.asarray(y, dtype)
    y[::7] = 0.0 if name == "poisson" else np.where(np.abs(z[::7]) <= 1, np.abs(z[::7]), 1.0)
    p = formula_ids.loss_parameters(chosen, 1, "float64")[0]
    term, slope = over(dtype, "loss", formula_ids.LOSS_IDS[name], float(p[0, 0]), z, y)
    zs, ys = B.given(z[None, :]), B.given(y[None, :])
    wide = z[None, :].astype(np.float64), y[None, :].astype(np.float64)
    exactly: Loss = get_loss(as_given(chosen.spec(), dtype))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for got, bound, exact in (
            (term, losses.loss_value(B, name, vars(chosen), zs, ys), exactly.value(np, *wide)),
            (slope, losses.loss_delta(B, name, vars(chosen), zs, ys), exactly.delta(np, *wide)),
        ):
            assert ratio(got[None, :], bound) <= 1.0
            within = np.isfinite(bound.v)
            assert ratio(got[None, :][within], Bounded(B, exact[within], e=bound.errors()[within])) <= 1.0


# --- optimizers ----------------------------------------------------------------------------------------------------

OPTIMIZERS = [
    *("sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "amsgrad", "lion"),
    {"name": "momentum", "variant": "average", "momentum": 0.8},
    {"name": "adam", "variant": "epsilon_hat", "beta2": 0.99},
    {"name": "lion", "weight_decay": 0.3},
    {"name": "momentum", "momentum": 0},
]


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("spec", OPTIMIZERS, ids=str)
def test_the_constants_of_an_optimizer(spec: Any, decay: bool) -> None:
    """Each beside 1 minus it, and the rule of the decaying variants; the laws run the recurrence itself."""
    optimizer: Optimizer = get_optimizer(spec)
    rule, constants = formula_ids.rule_of(optimizer, decay)
    assert rule in formula_ids.OPTIMIZERS
    assert constants[4] == getattr(optimizer, "epsilon", 0.0)
    for rate, rest in zip(constants[0:4:2], constants[1:4:2], strict=True):
        assert rest in (0.0, 1.0 - rate)
    if optimizer.name in ("adamw", "lion"):
        assert rule == {("adamw", True): "adamw", ("adamw", False): "adam", ("lion", True): "lion_decaying"}.get(
            (optimizer.name, decay), "lion"
        )


# --- dropout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "seed", "step", "first"), [(0.3, 5, 3, 2), (0.9, 2**64 - 1, 2**33, 2**40)])
def test_survivors_are_those_of_maths(rate: float, seed: int, step: int, first: int) -> None:
    """Word u % 4 of counter (u / 4, first + example, layer, step), all taken modulo 2^32."""
    n, m, layer = 9, 6, 2
    quads, examples = np.arange(3)[:, None], np.arange(m)[None, :]
    mask = regularization.dropout_mask(np, n, rate, seed, layer, quads, examples, np.array([step]), np.array([first]))
    keep = round((1.0 - rate) * 2**32)
    for u in range(n):
        for e in range(m):
            counter = tuple(x % 2**32 for x in (u // 4, first + e, layer, step))
            assert (words(counter, (seed % 2**32, seed >> 32))[u % 4] < keep) == mask[u, e]
