"""The laws of ``backends.base.Kernels`` for the weights of an ensemble's members: every kernel set, device and dtype.

``Bench.run`` checks at every call that inputs stay, outputs share no memory with them, and bits repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import Bench, same_bits
from support.judging import ratio

from backprop_gpu.parity.oracle import members
from backprop_gpu.parity.oracle.bounds import Bounded

SHAPES = [(1, 1), (1, 9), (7, 1), (11, 13), (33, 37), (300, 17), (5, 531)]  # (n, k); with several blocks of a sum


@pytest.fixture(params=["float32", "float64"])
def bench(request: pytest.FixtureRequest, case: Case) -> Bench:
    return Bench(case, request.param)


def given_of(bench: Bench, n: int, k: int, scales_outputs: bool) -> dict[str, Any]:
    """Numbers of both signs; some of r are 0, as an ensemble may learn."""
    rng = np.random.default_rng([n, k])
    r = bench.normal(rng, k)
    r[::5] = 0.0
    return {"W": bench.normal(rng, n, k), "r": r, "s": bench.normal(rng, n) if scales_outputs else None}


def bounded(bench: Bench, given: dict[str, Any]) -> dict[str, Any]:
    """r as a row and s as a column, with bounds."""
    r, s = given["r"].reshape(1, -1), None if given["s"] is None else bench.B.given(given["s"].reshape(-1, 1))
    return {"W": bench.B.given(given["W"]), "r": bench.B.given(r), "s": s}


@pytest.mark.parametrize("scales_outputs", [False, True])
@pytest.mark.parametrize("case", cases())
def test_member_weights(bench: Bench, scales_outputs: bool) -> None:
    """Within the bound; signs alone round nothing, so then every kernel set has the same bits."""
    for n, k in SHAPES:
        given = given_of(bench, n, k, scales_outputs)
        out = bench.run("member_weights", given, {"out": bench.blank(n, k)})["out"]
        assert ratio(out, members.weights(**bounded(bench, given))) <= 1.0, (n, k)
        signs = {
            key: x if x is None or key == "W" else np.where(x < 0, -1, 1).astype(x.dtype) for key, x in given.items()
        }
        out = bench.run("member_weights", signs, {"out": bench.blank(n, k)})["out"]
        same_bits(out, signs["W"] * signs["r"] * (1 if signs["s"] is None else signs["s"][:, None]))


@pytest.mark.parametrize("scales_outputs", [False, True])
@pytest.mark.parametrize("case", cases())
def test_member_weights_vjp(bench: Bench, scales_outputs: bool) -> None:
    """dW overwritten or added to, and dr and ds apart from it."""
    B = bench.B
    for n, k in SHAPES:
        given = given_of(bench, n, k, scales_outputs)
        rng = np.random.default_rng([n, k, 1])
        given["G"] = bench.normal(rng, n, k)
        wanted = dict(zip(("dW", "dr", "ds"), members.vjp(B.given(given["G"]), **bounded(bench, given)), strict=True))
        for accumulate, accumulate_own in ((False, False), (True, False), (True, True)):
            shapes = {"dW": (n, k), "dr": (k,)} | ({"ds": (n,)} if scales_outputs else {})
            added = {"dW": accumulate, "dr": accumulate_own, "ds": accumulate_own}
            start = {key: bench.normal(rng, *x) if added[key] else bench.blank(*x) for key, x in shapes.items()}
            how = {"accumulate": accumulate, "accumulate_own": accumulate_own}
            how |= {} if scales_outputs else {"ds": None}
            out = bench.run("member_weights_vjp", given, start, **how)
            for key, found in out.items():
                want: Bounded = wanted[key]
                shape = want.shape  # sums keep their axis
                want = B.given(start[key].reshape(shape)) + want if added[key] else want
                assert ratio(found.reshape(shape), want) <= 1.0, (key, n, k)
