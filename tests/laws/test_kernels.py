"""The laws of ``backends.base.Kernels`` for the operations of a layer: every kernel set, device and dtype.

``Bench.run`` checks at every call that inputs stay, outputs share no memory with them, and bits repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import SHAPES, Bench, same_bits
from support.judging import product, ratio, state_of, summed

from backprop_gpu.maths.activations import ACTIVATIONS, Activation, get_activation
from backprop_gpu.parity.oracle import layers

HIDDEN = [
    *(a for a in ACTIVATIONS.values() if not a.output_only),
    get_activation({"name": "leaky_relu", "slope": 0.2}),
    get_activation({"name": "elu", "alpha": 0.6}),
]
RATES = (0.0, 0.3)


def name_of(g: Activation) -> str:
    return "-".join(str(x) for x in (g.name, *dict(g.parameters).values()))


@pytest.fixture(params=["float32", "float64"])
def bench(request: pytest.FixtureRequest, case: Case) -> Bench:
    return Bench(case, request.param)


def layer(bench: Bench, n: int, k: int, m: int, seed: int = 0) -> dict[str, np.ndarray]:
    """W, A_prev, b with a few pre-activations that are exactly 0 (the kink), far out, and ordinary."""
    rng = np.random.default_rng([n, k, m, seed])
    W, A_prev, b = bench.normal(rng, n, k), bench.normal(rng, k, m), bench.normal(rng, n, 1, scale=0.5)
    b[::2] = 0.0
    A_prev[:, ::3] = 0.0
    A_prev[:, 1::5] *= 4.0
    return {"W": W, "A_prev": A_prev, "b": b}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("g", HIDDEN, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_dense(bench: Bench, g: Activation, rate: float) -> None:
    B = bench.B
    for n, k, m in SHAPES:
        given = layer(bench, n, k, m)
        dropout = bench.dropout(rate, n, m)
        saved = bench.kernels.saved(n, k, m, bench.dtype, g, dropout)
        out = bench.run("dense", given, {"A": bench.blank(n, m)}, activation=g, dropout=dropout, saved=saved)
        seen = {key: bench.get(x) for key, x in bench.kernels.debug_tensors(saved).items()}
        z = product(B, *given.values())
        if "Z" in seen:
            assert ratio(seen["Z"], z) <= 1.0
            z = B.given(seen["Z"])
        mask = layers.philox_mask(n, rate, 5, 2, 3, 2 + np.arange(m)) if rate else None
        if mask is not None:
            same_bits(seen["mask"], mask)
        a = layers.activation(B, g.name, dict(g.parameters), z)
        assert ratio(out["A"], layers.dropped(B, a, mask, rate)) <= 1.0, (n, k, m)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("g", HIDDEN, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_dense_vjp_input(bench: Bench, g: Activation, rate: float) -> None:
    """dZ_prev overwritten; db_prev overwritten or added to, scaled or not; and the kernel set's own saved state."""
    B = bench.B
    for n, k, m in SHAPES:
        rng = np.random.default_rng([n, k, m, 1])
        below = layer(bench, k, n + 2, m)
        dropout = bench.dropout(rate, k, m)
        A_prev, saved = bench.forward(*below.values(), g, dropout)
        seen = {key: bench.get(x) for key, x in bench.kernels.debug_tensors(saved).items()}
        W, dZ, scale = bench.normal(rng, n, k), bench.normal(rng, n, m), np.array([1.0 / 3.0], bench.dtype)
        mask = layers.philox_mask(k, rate, 5, 2, 3, 2 + np.arange(m)) if rate else None
        dA = layers.dropped(B, product(B, W.T, dZ), mask, rate)
        z, a = state_of(B, g, seen, bench.get(A_prev), rate, product(B, *below.values()))
        wanted = layers.activation_vjp(B, g.name, dict(g.parameters), dA, z, a)
        for s in (None, scale):
            for old in (None, bench.normal(rng, k, 1)):
                start = bench.blank(k, 1) if old is None else old
                out = bench.run(
                    "dense_vjp_input",
                    {"W": W, "dZ": dZ, "scale": s},
                    {"dZ_prev": bench.blank(k, m), "db_prev": start},
                    activation_prev=g,
                    dropout_prev=dropout,
                    A_prev=A_prev,
                    saved_prev=saved,
                    accumulate=old is not None,
                )
                assert ratio(out["dZ_prev"], wanted) <= 1.0, (n, k, m)
                assert ratio(out["db_prev"], summed(B, out["dZ_prev"], s, old)) <= 1.0, (n, k, m)


@pytest.mark.parametrize("g", HIDDEN, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_pre_activations_far_out(bench: Bench, g: Activation) -> None:
    """Nothing overflows on the way to a finite result, and subnormal numbers are within one smallest normal."""
    B, one = bench.B, np.ones((1, 1), bench.dtype)
    size = np.array([0.0, 1e-40, 1e-12, 1e-3, 8.0, 17.0, 88.5, 104.0, 710.0, 746.0, 1e4], bench.dtype)
    z = np.concatenate([size, -size])[None, :]
    A, saved = bench.forward(one, z, np.zeros((1, 1), bench.dtype), g, None)
    a = layers.activation(B, g.name, dict(g.parameters), B.given(z))
    assert ratio(bench.get(A), a) <= 1.0
    out = bench.run(
        "dense_vjp_input",
        {"W": one, "dZ": np.ones_like(z), "scale": None},
        {"dZ_prev": bench.blank(*z.shape), "db_prev": bench.blank(1, 1)},
        activation_prev=g,
        dropout_prev=None,
        A_prev=A,
        saved_prev=saved,
        accumulate=False,
    )
    wanted = layers.activation_vjp(
        B, g.name, dict(g.parameters), B.given(np.ones_like(z)), B.given(z), B.given(bench.get(A))
    )
    assert ratio(out["dZ_prev"], wanted) <= 1.0


@pytest.mark.parametrize("g", HIDDEN, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_slopes_are_finite_at_every_finite_pre_activation(bench: Bench, g: Activation) -> None:
    """Even where Z^2 overflows: every hidden activation's slope is bounded."""
    one = np.ones((1, 1), bench.dtype)
    far = np.sqrt(np.finfo(bench.dtype).max) * np.array([0.5, 2.0, 1e6], bench.dtype)
    z = np.concatenate([far, -far])[None, :]
    with np.errstate(over="ignore"):
        A, saved = bench.forward(one, z, np.zeros((1, 1), bench.dtype), g, None)
        out = bench.run(
            "dense_vjp_input",
            {"W": one, "dZ": np.ones_like(z), "scale": None},
            {"dZ_prev": bench.blank(*z.shape), "db_prev": bench.blank(1, 1)},
            activation_prev=g,
            dropout_prev=None,
            A_prev=A,
            saved_prev=saved,
            accumulate=False,
        )
    assert np.isfinite(bench.get(A)).all()
    steepest = 1.0507009873554805 if g.name == "selu" else 1.0  # lambda; the others' slopes go to 1 or to 0
    assert (np.abs(out["dZ_prev"]) <= np.asarray(steepest, bench.dtype)).all()


def params(bench: Bench, n: int, k: int, m: int, scale: Any, old: Any) -> np.ndarray:
    """dW of random dZ (n, m) and A_prev (k, m), within its bound."""
    rng, B = np.random.default_rng([n, k, m, 2]), bench.B
    dZ, A_prev = bench.normal(rng, n, m), bench.normal(rng, k, m)
    out = bench.run(
        "dense_vjp_params",
        {"dZ": dZ, "A_prev": A_prev, "scale": scale},
        {"dW": bench.blank(n, k) if old is None else old},
        accumulate=old is not None,
    )
    assert ratio(out["dW"], product(B, dZ, A_prev.T, old, scale)) <= 1.0
    return out["dW"]


@pytest.mark.parametrize("case", cases())
def test_dense_vjp_params(bench: Bench) -> None:
    for n, k, m in SHAPES:
        third, one = np.array([1.0 / 3.0], bench.dtype), np.ones(1, bench.dtype)
        old = bench.normal(np.random.default_rng(3), n, k)
        plain = params(bench, n, k, m, None, None)
        params(bench, n, k, m, third, None)
        params(bench, n, k, m, third, old)
        same_bits(params(bench, n, k, m, one, None), plain)
        same_bits(params(bench, n, k, m, None, np.zeros_like(old)), plain)
        same_bits(params(bench, n, k, m, None, old), params(bench, n, k, m, one, old))


@pytest.mark.parametrize("case", cases())
def test_scale_is_read_at_every_call(bench: Bench) -> None:
    """A buffer, not a number: what it holds now counts."""
    rng = np.random.default_rng(4)
    dZ, A_prev, scale = (bench.put(bench.normal(rng, *shape)) for shape in ((3, 4), (2, 4), (1,)))
    dW, bits = bench.put(bench.blank(3, 2)), []
    for number in (1.0, 2.0, -0.5):
        scale[...] = number
        bench.kernels.dense_vjp_params(dZ, A_prev, scale=scale, dW=dW, accumulate=False)
        bits.append(bench.get(dW))
    same_bits(bits[1], 2 * bits[0])
    same_bits(bits[2], -bits[0] / 2)


@pytest.mark.parametrize("case", cases())
def test_products_keep_every_bit_of_their_factors(bench: Bench) -> None:
    """One-hot columns times W give W's columns bit for bit: a product in tf32 or bf16 does not."""
    rng = np.random.default_rng(6)
    n, k = 64, 96
    W, pick = bench.normal(rng, n, k), rng.permutation(k)
    one_hot = np.eye(k, dtype=bench.dtype)[:, pick]
    g = get_activation("identity")
    A, _ = bench.forward(W, one_hot, np.zeros((n, 1), bench.dtype), g, None)
    same_bits(bench.get(A), W[:, pick])
    back = bench.run(
        "dense_vjp_params",
        {"dZ": W, "A_prev": one_hot, "scale": None},
        {"dW": bench.blank(n, k)},
        accumulate=False,
    )
    same_bits(back["dW"], W[:, np.argsort(pick)])
    # 1 + 2^-23 needs a wide accumulator as well: three terms, of which the first alone is large
    tiny = np.finfo(bench.dtype).eps
    rows = np.array([[1.0, tiny, 0.0]], bench.dtype)
    A, _ = bench.forward(rows, np.ones((3, 5), bench.dtype), np.zeros((1, 1), bench.dtype), g, None)
    same_bits(bench.get(A), np.full((1, 5), 1.0 + tiny, bench.dtype))


@pytest.mark.parametrize("case", cases())
def test_dropout_masks_have_the_same_bits_everywhere(bench: Bench) -> None:
    """For every split of the batch, and at counters beyond 32 bits."""
    g = get_activation("relu")
    for n, rate, seed, step, first in (
        (1, 0.5, 0, 0, 0),
        (4, 0.1, 2**64 - 1, 99, 2**31),
        (13, 0.9, 2**40 + 7, 2**33, 5),
    ):
        m = 19
        whole = layers.philox_mask(n, rate, seed, 2, step, first + np.arange(m))
        assert 0 < whole.sum() < whole.size
        for start, size in ((0, m), (7, 5)):
            dropout = bench.dropout(rate, n, size, seed=seed, step=step, first=first + start)
            _, saved = bench.forward(np.ones((n, 1)), np.ones((1, size)), np.ones((n, 1)), g, dropout)
            same_bits(bench.get(bench.kernels.debug_tensors(saved)["mask"]), whole[:, start : start + size])


@pytest.mark.parametrize("case", cases())
def test_gather(bench: Bench) -> None:
    """Batch k of an order; the last one may be shorter than the stride."""
    rng = np.random.default_rng(7)
    for rows, width, stride in ((1, 1, 1), (11, 3, 11), (11, 3, 4), (50, 2, 8)):
        order = rng.permutation(rows)
        floats, labels = bench.normal(rng, rows, width), rng.integers(0, 9, (rows, 1))
        for source in (floats, labels):
            for k in range(-(-rows // stride)):
                wanted = source[order[k * stride : (k + 1) * stride]]
                given = {"source": source, "order": order, "counters": np.array([k, 77])}
                start = np.full(wanted.shape, 77, source.dtype)
                same_bits(bench.run("gather", given, {"out": start}, stride=stride)["out"], wanted)


@pytest.mark.parametrize("case", cases())
def test_advance(bench: Bench) -> None:
    """Before the first batch nothing is put away; after that, each cost goes to its place."""
    table = bench.normal(np.random.default_rng(8), 3, 5)
    values = np.array([10.0, 11.0, 12.0], bench.dtype)
    for k in (-1, 0, 1):
        outputs = {
            "counters": np.array([k, 40 + k]),
            "values": values,
            "step_scalars": bench.blank(5),
            "value": np.array([0.75], bench.dtype),
        }
        out = bench.run("advance", {"table": table}, outputs)
        same_bits(out["counters"], np.array([k + 1, 41 + k]))
        same_bits(out["values"], np.where(np.arange(3) == k, np.asarray(0.75, bench.dtype), values))
        same_bits(out["value"], np.zeros(1, bench.dtype))
        same_bits(out["step_scalars"], table[k + 1])


@pytest.mark.parametrize("case", cases())
def test_a_captured_program_runs_as_often_as_asked(bench: Bench) -> None:
    """Three times the program by Python, or replayed three times: the same bits."""
    table = bench.put(bench.normal(np.random.default_rng(9), 4, 2))
    found = []
    for captured in (False, True):
        counters, values, step_scalars, value = (
            bench.put(x) for x in (np.array([-1, 6]), np.zeros(4), np.zeros(2), np.ones(1))
        )

        def program() -> None:
            bench.kernels.advance(counters, table, values, step_scalars=step_scalars, value=value)  # noqa: B023

        if captured:
            replay = bench.kernels.capture(program)
            counters[...] = bench.put(np.array([-1, 6]))
            replay(3)
        else:
            for _ in range(3):
                program()
        found.append([bench.get(x) for x in (counters, step_scalars)])
    for called, replayed in zip(*found, strict=True):
        same_bits(called, replayed)


@pytest.mark.parametrize("case", cases())
def test_infinite_and_undefined_numbers_are_not_hidden(bench: Bench) -> None:
    """NaN and infinity come through a layer as they would through its formula; a dead unit stops an infinite dA."""
    W, b = np.ones((2, 2), bench.dtype), np.zeros((2, 1), bench.dtype)
    A_prev = np.array([[np.nan, np.inf, -np.inf, 1.0], [1.0, 1.0, 1.0, 1.0]], bench.dtype)
    with np.errstate(invalid="ignore"):
        for name, wanted in (("relu", [np.nan, np.inf, 0.0, 2.0]), ("identity", [np.nan, np.inf, -np.inf, 2.0])):
            A, saved = bench.forward(W, A_prev, b, get_activation(name), None)
            same_bits(bench.get(A), np.array([wanted, wanted], bench.dtype))
        A, saved = bench.forward(-W, np.ones((2, 1)), b, get_activation("relu"), None)
        out = bench.run(
            "dense_vjp_input",
            {"W": W, "dZ": np.full((2, 1), np.inf), "scale": None},
            {"dZ_prev": bench.blank(2, 1), "db_prev": bench.blank(2, 1)},
            activation_prev=get_activation("relu"),
            dropout_prev=None,
            A_prev=A,
            saved_prev=saved,
            accumulate=False,
        )
    same_bits(out["dZ_prev"], np.zeros((2, 1), bench.dtype))
