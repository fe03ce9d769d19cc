"""The laws of ``backends.base.Kernels`` for what comes before the first dense layer: every kernel set and dtype.

``Bench.run`` checks at every call that inputs stay, outputs share no memory with them, and bits repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import Bench, same_bits
from support.judging import ratio

from backprop_gpu.parity.oracle import input_stage
from backprop_gpu.parity.oracle.operations import sum_over

SHAPES = [(1, 1), (3, 7), (7, 1), (16, 64), (5, 530)]  # (inputs, examples); with several blocks of a sum


@pytest.fixture(params=["float32", "float64"])
def bench(request: pytest.FixtureRequest, case: Case) -> Bench:
    return Bench(case, request.param)


def as_gathered(bench: Bench, X: np.ndarray) -> Any:
    """X (k, m) on the device with its examples contiguous, as batches are."""
    return bench.put(np.ascontiguousarray(X.T)).T


@pytest.mark.parametrize("case", cases())
def test_scaling(bench: Bench) -> None:
    """One rounding; the same bits whichever way X lies in memory."""
    for k, m in SHAPES:
        rng = np.random.default_rng([k, m])
        X, s = bench.normal(rng, k, m), bench.normal(rng, k, 1)
        s[::3] = 1.0
        out = bench.run("scaling", {"X": X, "s": s}, {"H": bench.blank(k, m)})["H"]
        assert ratio(out, input_stage.scaling(bench.B.given(X), bench.B.given(s))) <= 1.0
        same_bits(out[::3], X[::3])
        H = bench.put(bench.blank(k, m))
        bench.kernels.scaling(as_gathered(bench, X), bench.put(s), H=H)
        same_bits(bench.get(H), out)


@pytest.mark.parametrize("case", cases())
def test_scaling_vjp(bench: Bench) -> None:
    """dX overwritten, or not asked for; ds overwritten or added to, scaled or not."""
    B, scale = bench.B, np.array([1.0 / 3.0], bench.dtype)
    for k, m in SHAPES:
        rng = np.random.default_rng([k, m, 1])
        dH, X, s = bench.normal(rng, k, m), bench.normal(rng, k, m), bench.normal(rng, k, 1)
        dX, terms = input_stage.scaling_vjp(B.given(dH), B.given(X), B.given(s))
        for c, old in ((None, None), (scale, None), (None, s), (scale, s)):
            total = sum_over(terms, axis=1)
            total = total if c is None else B.given(c) * total
            total = total if old is None else B.given(old) + total
            given = {"dH": dH, "X": X, "s": s, "scale": c}
            start = {"ds": bench.blank(k, 1) if old is None else old}
            out = bench.run("scaling_vjp", given, start | {"dX": bench.blank(k, m)}, accumulate=old is not None)
            assert ratio(out["dX"], dX) <= 1.0, (k, m)
            assert ratio(out["ds"], total) <= 1.0, (k, m)
            alone = bench.run("scaling_vjp", given | {"dX": None}, start, accumulate=old is not None)
            same_bits(alone["ds"], out["ds"])
        ds = bench.put(bench.blank(k, 1))
        gathered = bench.put(dH), as_gathered(bench, X), bench.put(s)
        bench.kernels.scaling_vjp(*gathered, scale=None, dX=None, ds=ds, accumulate=False)
        same_bits(
            bench.get(ds),
            bench.run("scaling_vjp", given | {"scale": None, "dX": None}, {"ds": s}, accumulate=False)["ds"],
        )
