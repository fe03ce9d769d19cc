"""The laws of ``backends.base.Kernels`` for what comes before the first dense layer: every kernel set and dtype.

``Bench.run`` checks at every call that inputs stay, outputs share no memory with them, and bits repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import Bench, same_bits
from support.judging import product, ratio

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


COLUMNS = [(1, 1, 1, 1), (2, 3, 2, 7), (3, 16, 3, 64), (2, 5, 1, 530)]  # (J, h, o, m)


def embedding(bench: Bench, J: int, h: int, o: int, m: int) -> dict[str, np.ndarray]:
    """Two inputs more than are embedded; waves of many lengths, one of which does not move."""
    rng = np.random.default_rng([J, h, o, m])
    w = bench.normal(rng, J, h) * (10.0 ** rng.integers(-2, 2, (J, 1))).astype(bench.dtype)
    w[0, 0] = 0.0
    of_outputs = {"V": bench.normal(rng, J * o, h), "c": bench.normal(rng, J * o, 1)}
    return {"X": bench.normal(rng, J + 2, m), "w": w, "b": bench.normal(rng, J, h), **of_outputs}


@pytest.mark.parametrize("case", cases())
def test_periodic(bench: Bench) -> None:
    """Waves and their slopes within the bounds of sine and cosine, outputs within that of a product of them."""
    B = bench.B
    for J, h, o, m in COLUMNS:
        given = embedding(bench, J, h, o, m)
        start = {"E": bench.blank(J * o, m), "P": bench.blank(J * h, m), "Q": bench.blank(J * h, m)}
        out = bench.run("periodic", given, start)
        for j in range(J):
            waves, outputs = slice(j * h, (j + 1) * h), slice(j * o, (j + 1) * o)
            of_column = (B.given(given[key][j].reshape(-1, 1)) for key in ("w", "b"))
            P, Q = input_stage.waves(B, B.given(given["X"][j : j + 1]), *of_column)
            assert ratio(out["P"][waves], P) <= 1.0, (J, h, o, m)
            assert ratio(out["Q"][waves], Q) <= 1.0, (J, h, o, m)
            E = product(B, given["V"][outputs], out["P"][waves]) + B.given(given["c"][outputs])
            assert ratio(out["E"][outputs], E) <= 1.0, (J, h, o, m)
        alone = bench.run("periodic", given, {key: start[key] for key in ("E", "P")}, Q=None)
        same_bits(alone["E"], out["E"])
        E, P = bench.put(start["E"]), bench.put(start["P"])
        tensors = (bench.put(given[key]) for key in ("w", "b", "V", "c"))
        bench.kernels.periodic(as_gathered(bench, given["X"]), *tensors, E=E, P=P, Q=None)
        same_bits(bench.get(E), out["E"])


@pytest.mark.parametrize("case", cases())
def test_periodic_vjp(bench: Bench) -> None:
    """Each derivative overwritten or added to, scaled or not."""
    B, scale = bench.B, np.array([1.0 / 3.0], bench.dtype)
    for J, h, o, m in COLUMNS:
        given, rng = embedding(bench, J, h, o, m), np.random.default_rng([J, h, o, m, 1])
        X, V, w, c = (given[key] for key in ("X", "V", "w", "c"))
        dE, P, Q = bench.normal(rng, J * o, m), bench.normal(rng, J * h, m), bench.normal(rng, J * h, m)
        for s, adds in ((None, False), (scale, False), (None, True), (scale, True)):
            old = {"dw": w, "db": given["b"], "dV": V, "dc": c}
            start = old if adds else {key: bench.blank(*x.shape) for key, x in old.items()}
            known = {"dE": dE, "X": X, "P": P, "Q": Q, "V": V, "scale": s}
            out = bench.run("periodic_vjp", known, start, accumulate=adds)
            for j in range(J):
                waves, outputs = slice(j * h, (j + 1) * h), slice(j * o, (j + 1) * o)
                dz = product(B, np.ascontiguousarray(V[outputs].T), dE[outputs]) * B.given(Q[waves])
                along, alone = input_stage.wave_terms(B, dz, B.given(X[j : j + 1]))
                wanted = {
                    "dw": (slice(j, j + 1), sum_over(along, axis=1), (1, h)),
                    "db": (slice(j, j + 1), sum_over(alone, axis=1), (1, h)),
                    "dV": (outputs, product(B, dE[outputs], np.ascontiguousarray(P[waves].T)), (o, h)),
                    "dc": (outputs, sum_over(B.given(dE[outputs]), axis=1), (o, 1)),
                }
                for key, (part, total, shape) in wanted.items():
                    total = total if s is None else B.given(s) * total
                    total = total if not adds else B.given(old[key][part].reshape(total.shape)) + total
                    assert out[key][part].shape == shape
                    assert ratio(out[key][part].reshape(total.shape), total) <= 1.0, (key, J, h, o, m)
