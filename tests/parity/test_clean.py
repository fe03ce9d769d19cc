"""No false alarms: a sample of the random honest runs that ``scripts/parity_clean`` counts by the ten thousand."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from support.clean_runs import ACTIVATIONS, EXAMPLES, LOSSES, OPTIMIZERS, SCHEDULES, Run, devices, plan, run
from support.orders import ORDERS, sequential

from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.checking import check

RUNS = 500 if os.environ.get("BACKPROP_GPU_LONG_TESTS") else 250
CHUNK = 25


def named(spec: object) -> str:
    return str(spec["name"]) if isinstance(spec, dict) else str(spec)


@pytest.mark.parametrize("start", range(0, RUNS, CHUNK))
def test_honest_devices_are_found_right(start: int) -> None:
    for i in range(start, start + CHUNK):
        report = run(plan(i))
        assert report.ok, f"run {i}: {report.summary()}; {plan(i)}"
        loose = [f for f in report.findings if f.status == "warning" and f.rms is not None]
        assert not loose, f"run {i}: {loose}"


def test_the_sample_covers_what_it_should() -> None:
    runs: list[Run] = [plan(i) for i in range(RUNS)]
    found = {r.device for r in runs}
    assert found == set(devices())
    assert {f"order {name}" for name in ORDERS} <= found
    assert len(ORDERS) >= 4
    assert {"numpy reference", "array_api_strict reference", "fp16 emulated"} <= found
    assert {r.dtype for r in runs} == {"float32", "float64"}
    assert {r.claim for r in runs} == {"fp32", "fp64", "fp16"}
    assert {r.m for r in runs} == set(EXAMPLES) >= {1, 2, 3, 13, 15, 17, 31, 33, 63, 65}
    assert min(min(r.sizes) for r in runs) == 1
    activations = {named(a) for r in runs for a in r.net["activation"]}
    assert activations == {named(a) for a in ACTIVATIONS}
    assert {named(r.net["loss"]) for r in runs} == {named(x) for x in LOSSES}
    assert {str(r.settings["optimizer"]) for r in runs} == {str(x) for x in OPTIMIZERS}
    assert {str(r.settings["schedule"]) for r in runs} == {str(x) for x in SCHEDULES}
    for key in ("delta", "one_over_m", "reduction", "l1", "l2", "penalty_over"):
        assert len({r.settings[key] for r in runs}) == 2, key
    assert any(r.weighted for r in runs)
    assert any(any(r.net["dropout"] or [0]) for r in runs)
    assert {r.device for r in runs if any(r.net.get("batch_norm") or [0])} == set(devices())
    assert any(r.settings["micro_batch"] and r.m % r.settings["micro_batch"] for r in runs), "ragged micro-batches"


@pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
def test_native_kernels_are_in_the_sample() -> None:
    assert "numpy native" in {plan(i).device for i in range(RUNS)}


@pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
def test_native_kernels_drop_an_infinite_delta() -> None:
    sizes, rows = [4, 8, 3], np.full((6, 4), 40.0)
    net = DenseNet(sizes, loss="poisson", dropout=0.5, device="numpy", kernels="native", seed=1)
    named = net.parameters()
    net.set_parameters(named | {name: np.abs(x) + 0.5 for name, x in named.items() if name.startswith("W")})
    with np.errstate(all="ignore"):
        report = check(net, rows, np.ones((6, 3)))
        assert check(net, rows, np.ones((6, 3)), kernels="reference").ok, "the network is not to blame"
    assert report.ok, report.summary()


@pytest.mark.parametrize("device", [d for d in ("numpy reference", "numpy native") if d in devices()])
def test_networks_that_diverge_are_found_right(device: str) -> None:
    """Poisson's e^Z overflows: weights, activations and deltas become infinite and NaN within a step or two."""
    diverged = 0
    for i in range(40):
        r = plan(i, 7, [device])
        if len(r.sizes) > 2:
            net = r.net | {
                "loss": "poisson",
                "dropout": [0.2 if k % 2 else 0.5 for k, _ in enumerate(r.net["activation"])],
            }
            report = run(replace(r, net=net, scale=30.0, steps=3))
            assert report.ok, f"run {i}: {report.summary()}"
            assert report.trace is not None
            diverged += not np.isfinite(report.trace.theta_after).all()
    assert diverged > 5


@pytest.mark.parametrize("name", ORDERS)
def test_the_orders_of_summation_are_real(name: str) -> None:
    """They agree with the exact product, and not with each other's bits."""
    rng = np.random.default_rng(3)
    P, Q = rng.standard_normal((9, 50)).astype("float32"), rng.standard_normal((50, 11)).astype("float32")
    got, want = ORDERS[name](P, Q), P.astype(np.float64) @ Q.astype(np.float64)
    assert got.dtype == np.float32
    assert np.all(np.abs(got - want) <= 50 * 2.0**-24 * (np.abs(P) @ np.abs(Q)))
    assert name == "sequential" or np.any(got != sequential(P, Q))
