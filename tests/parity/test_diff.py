"""Two devices: the gap is measured, and a wrong device is blamed rather than the difference."""

from __future__ import annotations

import numpy as np
import pytest
from parity.faults import EARLY, FAULTS, FaultyBackend
from support.orders import ORDERS, with_product

from backprop_gpu.errors import ConfigError
from backprop_gpu.parity.compare import diff


def test_two_orders_of_summation_differ_and_both_are_right() -> None:
    X, y = EARLY.rows()
    report = diff(EARLY.net(), X, y, ["numpy", with_product(ORDERS["backwards"])])
    assert report.ok
    assert report.wrong == []
    gaps = {g.tensor: g for g in report.gaps}
    assert list(gaps)[:2] == ["logits", "J"]
    assert {f"d{p}{l}" for p in "Wb" for l in (1, 2, 3, 4)} | {f"{p}{l}" for p in "Wb" for l in (1, 2, 3, 4)} < set(
        gaps
    )
    assert 0.0 < gaps["dW1"].relative < 1e-4
    assert "both are within their bounds, so this is rounding" in report.summary()


def test_the_same_kernels_do_not_differ() -> None:
    X, y = EARLY.rows()
    report = diff(EARLY.net(), X, y, ["numpy", "array_api_strict"], kernels="reference")
    assert report.ok
    assert all(g.largest == 0.0 for g in report.gaps)


def test_kernel_sets_of_one_device_are_compared_too() -> None:
    X, y = EARLY.rows()
    report = diff(EARLY.net(), X, y, ["numpy", "numpy"], kernels=("reference", "native"))
    assert report.ok
    assert [r.about["kernels"] for r in report.reports] == ["ReferenceKernels", "NativeKernels"]


@pytest.mark.parametrize("place", [0, 1])
def test_the_wrong_device_is_blamed(place: int) -> None:
    X, y = EARLY.rows()
    devices = ["numpy", FaultyBackend(FAULTS["one_over_m_minus_1"])]
    how = {"one_over_m": "late", "kernels": "reference"}
    report = diff(EARLY.net(), X, y, devices if place else devices[::-1], **how)
    assert not report.ok
    assert report.wrong == ["numpy (Faulty)"]
    assert report.reports[place].ok is False
    assert report.reports[1 - place].ok
    assert "numpy (Faulty): parity wrong at dW2" in report.summary()
    assert "divided by m - 1" in report.summary()
    assert max(report.gaps, key=lambda g: g.relative).tensor in ("dW2", "W2")


def test_a_tiny_gap_can_be_a_wrong_device() -> None:
    """The gap alone would pass any tolerance in use: 2e-6 of the largest entry."""
    X, y = EARLY.rows()
    report = diff(EARLY.net(), X, y, ["numpy", FaultyBackend(FAULTS["tanh_off_by_ten_ulp"])], kernels="reference")
    logits = next(g for g in report.gaps if g.tensor == "logits")
    assert 0.0 < logits.relative < 1e-5
    assert report.wrong == ["numpy (Faulty)"]


def test_there_are_two_devices() -> None:
    X, y = EARLY.rows()
    for devices in ([], ["numpy"], ["numpy"] * 3):
        with pytest.raises(ConfigError, match="two devices"):
            diff(EARLY.net(), X, y, devices)


def test_gaps_are_of_what_was_computed() -> None:
    X, y = EARLY.rows()
    report = diff(EARLY.net(), X, y, ["numpy", FaultyBackend(FAULTS["bias_missing"])], kernels="reference")
    a, b = (r.trace for r in report.reports)
    assert a is not None
    assert b is not None
    gap = next(g for g in report.gaps if g.tensor == "J")
    assert gap.largest == pytest.approx(abs(float(a.value[0]) - float(b.value[0])))
    assert np.isfinite([g.relative for g in report.gaps]).all()
