"""The laws of ``backends.base.Kernels`` for batch normalization: every kernel set, device and dtype.

``Bench.run`` checks at every call that inputs stay, outputs share no memory with them, and bits repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import Bench, same_bits
from support.judging import product, ratio

from backprop_gpu.maths.activations import ACTIVATIONS, Activation, get_activation
from backprop_gpu.parity.oracle import layers
from backprop_gpu.parity.oracle.bounds import Bounded
from backprop_gpu.parity.oracle.operations import sum_over

HIDDEN = [
    *(a for a in ACTIVATIONS.values() if not a.output_only),
    get_activation({"name": "elu", "alpha": 0.6}),
]
SHAPES = [(1, 1), (1, 7), (5, 2), (11, 13), (16, 64)]  # (n, m)
WEIGHTS = ("none", "some 0", "all 0")


def name_of(g: Activation) -> str:
    return "-".join(str(x) for x in (g.name, *dict(g.parameters).values()))


@pytest.fixture(params=["float32", "float64"])
def bench(request: pytest.FixtureRequest, case: Case) -> Bench:
    return Bench(case, request.param)


def weights_of(bench: Bench, kind: str, m: int) -> np.ndarray | None:
    if kind == "none":
        return None
    w = np.abs(bench.normal(np.random.default_rng(m), 1, m)) + np.asarray(0.25, bench.dtype)
    w[:, 1::3] = 0.0
    return w if kind == "some 0" else 0.0 * w


def layer(bench: Bench, n: int, m: int) -> dict[str, np.ndarray]:
    """Units of many scales, one of which is constant; gamma of both signs."""
    rng = np.random.default_rng([n, m])
    Z = bench.normal(rng, n, m) * (10.0 ** rng.integers(-3, 3, (n, 1))).astype(bench.dtype)
    Z += bench.normal(rng, n, 1)
    Z[n // 2] = 0.5
    return {"Z": Z, "gamma": bench.normal(rng, n, 1), "beta": bench.normal(rng, n, 1)}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("g", HIDDEN, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_batch_norm(bench: Bench, g: Activation, rate: float, weights: str) -> None:
    B = bench.B
    for n, m in SHAPES:
        given, w = layer(bench, n, m), weights_of(bench, weights, m)
        dropout, old = bench.dropout(rate, n, m), {"mean": given["beta"] + 1, "variance": np.abs(given["gamma"])}
        saved = bench.kernels.saved(n, n, m, bench.dtype, g, dropout)
        start = {"A": bench.blank(n, m), "X": bench.blank(n, m), "inverse_std": bench.blank(n, 1), **old}
        how = {"activation": g, "dropout": dropout, "saved": saved}
        out = bench.run("batch_norm", given | {"weights": w}, start, **how)
        mean, variance, d = layers.moments(B, B.given(given["Z"]), w)
        assert ratio(out["inverse_std"], layers.inverse_std(B, variance)) <= 1.0, (n, m)
        assert ratio(out["X"], d * B.given(out["inverse_std"])) <= 1.0, (n, m)
        for key, new in (("mean", mean), ("variance", variance)):
            if weights == "all 0":
                same_bits(out[key], old[key])
            else:
                assert ratio(out[key], layers.running(B, B.given(old[key]), new, w)) <= 1.0, (key, n, m)
        U = B.given(given["gamma"]) * B.given(out["X"]) + B.given(given["beta"])
        activated(bench, g, rate, U, out["A"], saved)
        if w is not None:
            same_bits(out["X"][:, w[0] == 0.0], np.zeros((n, int((w == 0.0).sum())), bench.dtype))


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("g", HIDDEN, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_inference(bench: Bench, g: Activation, rate: float) -> None:
    """By the running statistics, which stay as they are."""
    B = bench.B
    for n, m in SHAPES:
        given = layer(bench, n, m)
        running = {"mean": given["beta"] + 1, "variance": np.abs(given["gamma"])}
        dropout = bench.dropout(rate, n, m)
        saved = bench.kernels.saved(n, n, m, bench.dtype, g, dropout)
        how = {"activation": g, "dropout": dropout, "saved": saved, "weights": None, "X": None, "inverse_std": None}
        out = bench.run("batch_norm", given | running, {"A": bench.blank(n, m)}, **how)
        z, gamma, beta = (B.given(given[key]) for key in ("Z", "gamma", "beta"))
        r = layers.inverse_std(B, B.given(running["variance"]))
        U = gamma * ((z - B.given(running["mean"])) * r) + beta
        activated(bench, g, rate, U, out["A"], saved)


def activated(bench: Bench, g: Activation, rate: float, U: Bounded, A: np.ndarray, saved: Any) -> None:
    """A is the layer's output from U, within its bound; what is kept of U is too."""
    B, (n, m) = bench.B, A.shape
    seen = {key: bench.get(x) for key, x in bench.kernels.debug_tensors(saved).items()}
    if "Z" in seen:
        assert ratio(seen["Z"], U) <= 1.0
        U = B.given(seen["Z"])
    mask = layers.philox_mask(n, rate, 5, 2, 3, 2 + np.arange(m)) if rate else None
    if mask is not None:
        same_bits(seen["mask"], mask)
    assert ratio(A, layers.dropped(B, layers.activation(B, g.name, dict(g.parameters), U), mask, rate)) <= 1.0, (n, m)


@pytest.mark.parametrize("g", HIDDEN, ids=name_of)
@pytest.mark.parametrize("case", cases())
def test_what_is_saved_serves_the_layer_above(bench: Bench, g: Activation) -> None:
    """dense_vjp_input over a normalized layer gives dU = (W^T dZ) drop g'(U)."""
    B, (n, m) = bench.B, (6, 13)
    given, dropout = layer(bench, n, m), bench.dropout(0.3, n, m)
    put = {key: bench.put(x) for key, x in given.items()}
    saved = bench.kernels.saved(n, n, m, bench.dtype, g, dropout)
    A, X, r = bench.put(bench.blank(n, m)), bench.put(bench.blank(n, m)), bench.put(bench.blank(n, 1))
    statistics = {"mean": bench.put(np.zeros((n, 1))), "variance": bench.put(np.ones((n, 1)))}
    bench.kernels.batch_norm(
        **put, activation=g, dropout=dropout, weights=None, A=A, X=X, inverse_std=r, saved=saved, **statistics
    )
    rng = np.random.default_rng(3)
    W, dZ = bench.normal(rng, 4, n), bench.normal(rng, 4, m)
    out = bench.run(
        "dense_vjp_input",
        {"W": W, "dZ": dZ, "scale": None},
        {"dZ_prev": bench.blank(n, m), "db_prev": bench.blank(n, 1)},
        activation_prev=g,
        dropout_prev=dropout,
        A_prev=A,
        saved_prev=saved,
        accumulate=False,
    )
    U = B.given(given["gamma"]) * B.given(bench.get(X)) + B.given(given["beta"])
    seen = {key: bench.get(x) for key, x in bench.kernels.debug_tensors(saved).items()}
    U = B.given(seen["Z"]) if "Z" in seen else U
    mask = layers.philox_mask(n, 0.3, 5, 2, 3, 2 + np.arange(m))
    a = B.given(seen["G"]) if "G" in seen else layers.activation(B, g.name, dict(g.parameters), U)
    dA = layers.dropped(B, product(B, W.T, dZ), mask, 0.3)
    assert ratio(out["dZ_prev"], layers.activation_vjp(B, g.name, dict(g.parameters), dA, U, a)) <= 1.0


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("case", cases())
def test_batch_norm_vjp(bench: Bench, weights: str) -> None:
    """dZ overwritten; dgamma overwritten or added to, scaled or not."""
    B, scale = bench.B, np.array([1.0 / 3.0], bench.dtype)
    for n, m in SHAPES:
        rng, w = np.random.default_rng([n, m, 1]), weights_of(bench, weights, m)
        dU, X = bench.normal(rng, n, m), bench.normal(rng, n, m)
        r, gamma = np.abs(bench.normal(rng, n, 1)), bench.normal(rng, n, 1)
        if w is not None:
            dU[:, w[0] == 0.0] = X[:, w[0] == 0.0] = 0.0
        wanted, terms = layers.batch_norm_vjp(B, B.given(dU), B.given(X), B.given(r), B.given(gamma), w)
        for s in (None, scale):
            for old in (None, bench.normal(rng, n, 1)):
                start = {"dZ": bench.blank(n, m), "dgamma": bench.blank(n, 1) if old is None else old}
                given = {"dU": dU, "X": X, "inverse_std": r, "gamma": gamma, "weights": w, "scale": s}
                out = bench.run("batch_norm_vjp", given, start, accumulate=old is not None)
                assert ratio(out["dZ"], wanted) <= 1.0, (n, m)
                total = sum_over(terms, axis=1)
                total = total if s is None else B.given(s) * total
                total = total if old is None else B.given(old) + total
                assert ratio(out["dgamma"], total) <= 1.0, (n, m)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan], ids=str)
@pytest.mark.parametrize("case", cases())
def test_an_example_of_weight_zero_contributes_nothing(bench: Bench, bad: float) -> None:
    """Whatever it holds: every output has the bits that it has with a harmless number there."""
    n, m = 5, 13
    given, w, g = layer(bench, n, m), weights_of(bench, "some 0", m), get_activation("tanh")
    assert w is not None
    outs = []
    for value in (bad, 0.25):
        Z = given["Z"].copy()
        Z[:, w[0] == 0.0] = value
        saved = bench.kernels.saved(n, n, m, bench.dtype, g, None)
        start = {"A": bench.blank(n, m), "X": bench.blank(n, m), "inverse_std": bench.blank(n, 1)}
        start |= {"mean": given["beta"], "variance": np.abs(given["gamma"])}
        how = {"activation": g, "dropout": None, "saved": saved}
        with np.errstate(invalid="ignore"):
            outs.append(bench.run("batch_norm", given | {"Z": Z, "weights": w}, start, **how))
    for key in outs[0]:
        same_bits(outs[0][key], outs[1][key])
