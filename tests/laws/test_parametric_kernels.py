"""The laws of ``backends.base.Kernels`` for parametric activations: every kernel set, device and dtype.

``Bench.run`` checks at every call that inputs stay, outputs share no memory with them, and bits repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import Bench, same_bits
from support.judging import product, ratio, summed

from backprop_gpu.maths.activations import ACTIVATIONS, Activation, get_activation
from backprop_gpu.parity.oracle import layers, parametric
from backprop_gpu.parity.oracle.operations import sum_over

HIDDEN = [*(a for a in ACTIVATIONS.values() if not a.output_only), get_activation({"name": "elu", "alpha": 0.6})]
SHAPES = [(1, 1), (5, 2), (11, 13), (3, 530)]  # (n, m)


@pytest.fixture(params=["float32", "float64"])
def bench(request: pytest.FixtureRequest, case: Case) -> Bench:
    return Bench(case, request.param)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("g", HIDDEN, ids=lambda g: "-".join(map(str, (g.name, *dict(g.parameters).values()))))
@pytest.mark.parametrize("case", cases())
def test_parametric(bench: Bench, g: Activation, rate: float) -> None:
    """D, S and A within their bounds; without D and S the same A; what is saved serves the layer above."""
    B, (name, parameters) = bench.B, (g.name, dict(g.parameters))
    for n, m in SHAPES:
        rng, dropout = np.random.default_rng([n, m]), bench.dropout(rate, n, m)
        given = {"Z": bench.normal(rng, n, m, scale=2.0), "alpha": bench.normal(rng, n, 1)}
        saved = bench.kernels.saved(n, n, m, bench.dtype, get_activation("identity"), dropout)
        start = {"A": bench.blank(n, m), "D": bench.blank(n, m), "S": bench.blank(n, m)}
        how: dict[str, Any] = {"activation": g, "dropout": dropout, "saved": saved}
        out = bench.run("parametric", given, start, **how)
        z, alpha = B.given(given["Z"]), B.given(given["alpha"])
        assert ratio(out["D"], parametric.difference(B, name, parameters, z)) <= 1.0, (n, m)
        assert ratio(out["S"], parametric.slope(B, name, parameters, z)) <= 1.0, (n, m)
        mask = layers.philox_mask(n, rate, 5, 2, 3, 2 + np.arange(m)) if rate else None
        mixed = parametric.mixed(z, alpha, parametric.difference(B, name, parameters, z))
        assert ratio(out["A"], layers.dropped(B, mixed, mask, rate)) <= 1.0, (n, m)
        alone = bench.run("parametric", given, {"A": start["A"]}, **how, D=None, S=None)
        same_bits(alone["A"], out["A"])
        W, dZ, A = bench.normal(rng, 2, n), bench.normal(rng, 2, m), bench.put(out["A"])
        below = {"dZ_prev": bench.blank(n, m), "db_prev": bench.blank(n, 1)}
        layer = {"activation_prev": get_activation("identity"), "dropout_prev": dropout, "A_prev": A}
        found = bench.run(
            "dense_vjp_input", {"W": W, "dZ": dZ, "scale": None}, below, **layer, saved_prev=saved, accumulate=False
        )
        dA = layers.dropped(B, product(B, np.ascontiguousarray(W.T), dZ), mask, rate)
        assert ratio(found["dZ_prev"], dA) <= 1.0, (n, m)


@pytest.mark.parametrize("case", cases())
def test_parametric_vjp(bench: Bench) -> None:
    """dZ overwritten; dalpha and db overwritten or added to, each by itself, scaled or not."""
    B, scale = bench.B, np.array([1.0 / 3.0], bench.dtype)
    for n, m in SHAPES:
        rng = np.random.default_rng([n, m, 1])
        dA, D, S = (bench.normal(rng, n, m) for _ in range(3))
        alpha, old = bench.normal(rng, n, 1), bench.normal(rng, n, 1)
        dZ, terms = parametric.vjp(*(B.given(x) for x in (dA, D, S, alpha)))
        for s, adds, adds_b in ((None, False, False), (scale, True, False), (scale, False, True)):
            start = {"dZ": bench.blank(n, m), "dalpha": old if adds else bench.blank(n, 1)}
            start["db"] = old if adds_b else bench.blank(n, 1)
            given = {"dA": dA, "D": D, "S": S, "alpha": alpha, "scale": s}
            out = bench.run("parametric_vjp", given, start, accumulate=adds, accumulate_b=adds_b)
            assert ratio(out["dZ"], dZ) <= 1.0, (n, m)
            total = sum_over(terms, axis=1)
            total = total if s is None else B.given(s) * total
            assert ratio(out["dalpha"], total if not adds else B.given(old) + total) <= 1.0, (n, m)
            assert ratio(out["db"], summed(B, out["dZ"], s, old if adds_b else None)) <= 1.0, (n, m)
