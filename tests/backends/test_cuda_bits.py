"""The CUDA kernels, emulated and on a card, give the native kernels' bits: one set of formulas, one order of every sum.

Products are left out (on a card they are cuBLASLt's): those here have one term. Over more than 32 outputs a loss is
summed by the lanes of a warp, in an order of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import Bench, same_bits

from backprop_gpu.backends import formula_ids
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.maths.activations import get_activation
from backprop_gpu.maths.losses import get_loss
from backprop_gpu.maths.optimizers import get_optimizer
from backprop_gpu.parity.oracle import losses

if unavailable_reason():
    pytest.skip(unavailable_reason(), allow_module_level=True)

SHAPES = [(1, 1), (3, 255), (9, 700), (2, 1800)]  # (units, examples): parts of a block of a sum, and trees of several
NORM_SHAPES = [(1, 3), (11, 257), (5, 1500)]
SMOOTHED = {"name": "categorical_cross_entropy", "label_smoothing": 0.1}
LOSSES: list[Any] = [
    *(name for name in formula_ids.SEPARATE_LOSSES),
    {"name": "binary_cross_entropy", "label_smoothing": 0.2},
    {"name": "quantile", "quantiles": [0.1, 0.5, 0.9]},
    "categorical_cross_entropy",
    SMOOTHED,
    {"name": "grouped_cross_entropy", "groups": [2, 4], "label_smoothing": 0.05},
]
RULES: list[Any] = [
    *("sgd", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "amsgrad", "momentum"),
    {"name": "momentum", "variant": "average"},
    {"name": "lion", "weight_decay": 0.3},
    {"name": "adam", "average": 0.9},
]


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[case for case in cases() if case.values[0].kind == "cuda"])
def pair(request: pytest.FixtureRequest, dtype: str) -> tuple[Bench, Bench]:
    return Bench(Case("numpy", "native"), dtype), Bench(request.param, dtype)


def agree(results: list[dict[str, Any]]) -> None:
    for name, value in results[0].items():
        for one, other in zip(*(r[name] if isinstance(value, list) else [r[name]] for r in results), strict=True):
            same_bits(one, other)
            np.testing.assert_array_equal(np.signbit(one), np.signbit(other), err_msg=name)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("name", formula_ids.ACTIVATION_IDS)
def test_layers(pair: tuple[Bench, Bench], name: str, rate: float) -> None:
    g, results = get_activation(name), []
    for n, m in SHAPES:
        results = []
        for bench in pair:
            rng, dropout = np.random.default_rng([n, m]), bench.dropout(rate, n, m)
            W, x, b = bench.normal(rng, n, 1, scale=2.0), bench.normal(rng, 1, m), bench.normal(rng, n, 1)
            A, saved = bench.forward(W, x, b, g, dropout)
            V, dZ, db = bench.put(bench.normal(rng, 1, n)), bench.put(bench.normal(rng, 1, m)), bench.put(b)
            out = {"dZ_prev": bench.put(bench.blank(n, m)), "db_prev": db}
            scale = bench.put(np.array([0.3]))
            bench.kernels.dense_vjp_input(V, dZ, g, dropout, A, saved, scale=scale, accumulate=True, **out)
            results.append({"A": bench.get(A)} | {key: bench.get(value) for key, value in out.items()})
        agree(results)


@pytest.mark.parametrize("weighted", [False, True])
def test_normalized_layers(pair: tuple[Bench, Bench], weighted: bool) -> None:
    for n, m in NORM_SHAPES:
        results = []
        for bench in pair:
            rng, g = np.random.default_rng([n, m]), get_activation("silu")
            given = {"Z": bench.normal(rng, n, m), "gamma": bench.normal(rng, n, 1), "beta": bench.normal(rng, n, 1)}
            given["weights"] = np.maximum(bench.normal(rng, 1, m), 0) if weighted else None
            out = {"A": bench.blank(n, m), "X": bench.blank(n, m), "inverse_std": bench.blank(n, 1)}
            out |= {"mean": given["beta"] + 1, "variance": np.abs(given["gamma"])}
            saved = bench.kernels.saved(n, n, m, bench.dtype, g, None)
            forward = bench.run("batch_norm", given, out, activation=g, dropout=None, saved=saved)
            given = {key: given[key] for key in ("gamma", "weights")} | {"dU": bench.normal(rng, n, m)}
            given |= {"X": forward["X"], "inverse_std": forward["inverse_std"], "scale": np.array([0.3])}
            start = {"dZ": bench.blank(n, m), "dgamma": bench.normal(rng, n, 1)}
            results.append(forward | bench.run("batch_norm_vjp", given, start, accumulate=True))
        agree(results)


def test_weights_of_members(pair: tuple[Bench, Bench]) -> None:
    for n, k in ((5, 7), (300, 13), (3, 530)):
        results = []
        for bench in pair:
            rng = np.random.default_rng([n, k])
            given = {"W": bench.normal(rng, n, k), "r": bench.normal(rng, k), "s": bench.normal(rng, n)}
            forward = bench.run("member_weights", given, {"out": bench.blank(n, k)})
            given["G"] = bench.normal(rng, n, k)
            start = {"dW": bench.normal(rng, n, k), "dr": bench.blank(k), "ds": bench.blank(n)}
            how = {"accumulate": True, "accumulate_own": False}
            results.append(forward | bench.run("member_weights_vjp", given, start, **how))
        agree(results)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("name", ["elu", "silu"])
def test_parametric_activations(pair: tuple[Bench, Bench], name: str, rate: float) -> None:
    for n, m in NORM_SHAPES:
        results = []
        for bench in pair:
            rng, g, dropout = np.random.default_rng([n, m]), get_activation(name), bench.dropout(rate, n, m)
            given = {"Z": bench.normal(rng, n, m), "alpha": bench.normal(rng, n, 1)}
            saved = bench.kernels.saved(n, n, m, bench.dtype, get_activation("identity"), dropout)
            start = {"A": bench.blank(n, m), "D": bench.blank(n, m), "S": bench.blank(n, m)}
            found = bench.run("parametric", given, start, activation=g, dropout=dropout, saved=saved)
            known = {"dA": bench.normal(rng, n, m), "D": found["D"], "S": found["S"], "alpha": given["alpha"]}
            start = {"dZ": bench.blank(n, m), "dalpha": bench.normal(rng, n, 1), "db": bench.blank(n, 1)}
            how = {"accumulate": True, "accumulate_b": False}
            results.append(found | bench.run("parametric_vjp", known | {"scale": np.array([0.3])}, start, **how))
        agree(results)


def test_input_stage(pair: tuple[Bench, Bench]) -> None:
    for n, m in NORM_SHAPES:
        results = []
        for bench in pair:
            rng = np.random.default_rng([n, m])
            given = {"X": bench.normal(rng, n, m), "s": bench.normal(rng, n, 1)}
            found = bench.run("scaling", given, {"H": bench.blank(n, m)})
            given |= {"dH": bench.normal(rng, n, m), "scale": np.array([0.3])}
            start = {"dX": bench.blank(n, m), "ds": bench.normal(rng, n, 1)}
            results.append(found | bench.run("scaling_vjp", given, start, accumulate=True))
        agree(results)
    for J, h, o, m in ((1, 3, 2, 5), (2, 16, 3, 700)):
        results = []
        for bench in pair:
            rng = np.random.default_rng([J, h, o, m])
            X, w, b = bench.normal(rng, J + 1, m, scale=9.0), bench.normal(rng, J, h), bench.normal(rng, J, h)
            V, c, dE = bench.normal(rng, J * o, h), bench.normal(rng, J * o, 1), bench.normal(rng, J * o, m)
            start = {"E": bench.blank(J * o, m), "P": bench.blank(J * h, m), "Q": bench.blank(J * h, m)}
            found = bench.run("periodic", {"X": X, "w": w, "b": b, "V": V, "c": c}, start)
            known = {"dE": dE, "X": X, "V": V, "scale": np.array([0.3]), "P": found["P"], "Q": found["Q"]}
            start = {"dw": w, "db": b, "dV": V, "dc": c}
            results.append(found | bench.run("periodic_vjp", known, start, accumulate=True))
        agree(results)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_losses(pair: tuple[Bench, Bench], loss: Any, early: bool) -> None:
    chosen, n = get_loss(loss), 6
    for m, weighted in ((5, False), (600, True), (2100, False)):
        results = []
        for bench in pair:
            rng = np.random.default_rng(m)
            Z, w = bench.normal(rng, n, m, scale=3.0), np.maximum(bench.normal(rng, 1, m), 0) if weighted else None
            Y = bench.normal(rng, n, m)
            if chosen.labels in ("classes", "groups"):
                Y = losses.one_hot(rng.integers(0, 2, (1, m)), n).astype(bench.dtype)
            elif chosen.name in ("binary_cross_entropy", "poisson"):
                Y = np.round(np.abs(Y).clip(0, 1)).astype(bench.dtype)
            results.append(bench.output_delta(chosen, "fused", Z, Y, w, inverse=1.0 / m, early=early))
        agree(results)


def test_class_labels(pair: tuple[Bench, Bench]) -> None:
    results = []
    for bench in pair:
        rng = np.random.default_rng(1)
        Z, Y = bench.normal(rng, 10, 300, scale=3.0), rng.integers(0, 10, (1, 300))
        results.append(bench.output_delta(get_loss(SMOOTHED), "fused", Z, Y, None, inverse=1 / 300, early=True))
    agree(results)


@pytest.mark.parametrize("size", [5, 4096, 70_001])
def test_penalty_and_norm(pair: tuple[Bench, Bench], size: int) -> None:
    results: list[dict[str, Any]] = []
    for bench in pair:
        rng = np.random.default_rng(size)
        theta, grad = bench.normal(rng, size), bench.normal(rng, size)
        given = {"theta": theta, "l1": np.array([0.3]), "l2": np.array([0.2])}
        results.append(bench.run("penalty", given, {"grad": grad, "value": np.ones(1)}))
        start = {"norm": bench.blank(1), "factor": bench.blank(1)}
        for scale in (1.0, float(np.finfo(bench.dtype).max) / 16, float(np.finfo(bench.dtype).smallest_normal)):
            big = {"grad": (grad / np.abs(grad).max() * np.asarray(scale, bench.dtype)).astype(bench.dtype)}
            found = bench.run("global_norm", big, start, max_norm=0.01)
            results[-1] |= {f"{key} at {scale}": value for key, value in found.items()}
    agree(results)


@pytest.mark.parametrize("spec", RULES, ids=str)
@pytest.mark.parametrize("decay", [False, True])
def test_updates(pair: tuple[Bench, Bench], spec: Any, decay: bool) -> None:
    optimizer, results = get_optimizer(spec), []
    for bench in pair:
        rng, size = np.random.default_rng(2), 3000
        start = {"theta": bench.normal(rng, size)}
        start["state"] = [np.abs(bench.normal(rng, size)) for _ in optimizer.state]
        given = {"grad": bench.normal(rng, size), "factor": np.array([0.7])}
        given["scalars"] = np.array(optimizer.step_scalars(3, 0.01))
        results.append(bench.run("update", given, start, optimizer=optimizer, decay=decay and optimizer.decays))
    agree(results)
