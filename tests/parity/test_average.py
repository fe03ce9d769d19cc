"""Parity of the weight average: judged like any other output of an update, and faults in it are found there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu.maths.optimizers import Optimizer
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.checking import check
from backprop_gpu.parity.report import Report

RULES = ("sgd", "nesterov", "adamw", "amsgrad", "lion")


def checked(rule: str, device: Any = "numpy", kernels: str = "reference", dtype: str = "float32") -> Report:
    rng = np.random.default_rng(0)
    net = DenseNet([4, 6, 1], device=device, kernels=kernels, dtype=dtype)
    optimizer = {"name": rule, "average": 0.9}
    rows = rng.standard_normal((16, 4)), rng.integers(0, 2, 16)
    return check(net, *rows, steps=3, dtype=dtype, optimizer=optimizer, clip_norm=0.1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", cases())
def test_honest_averages_are_found_right(case: Case, rule: str, dtype: str) -> None:
    report = checked(rule, case.backend, case.kind, dtype)
    assert report.ok, report.summary()
    assert "average" in {f.tensor for f in report.findings}


@contextlib.contextmanager
def replaced(name: str, function: Callable[..., Any]) -> Iterator[None]:
    honest = getattr(Optimizer, name)
    setattr(Optimizer, name, function)
    try:
        yield
    finally:
        setattr(Optimizer, name, honest)


@pytest.mark.parametrize(
    "fault", ["of the weights before the step", "rate turned round", "never moved", "step off by 1"]
)
def test_a_wrong_average_is_found_there(fault: str) -> None:
    step, numbers = Optimizer.step, Optimizer.step_scalars

    def wrong(self: Any, xp: Any, theta: Any, grad: Any, state: Any, given: Any, *, decay: bool) -> Any:
        moved, after = step(self, xp, theta, grad, state, given, decay=decay)
        old, share = state[-1], given[-1]
        average = {
            "of the weights before the step": old + share * (theta - old),
            "rate turned round": moved + share * (old - moved),
            "never moved": +old,
        }[fault]
        return moved, (*after[:-1], average)

    if fault == "step off by 1":
        with replaced("step_scalars", lambda self, t, rate: (*self.scalars(t, rate), numbers(self, t + 1, rate)[-1])):
            report = checked("sgd")
        where = "step numbers"
    else:
        with replaced("step", wrong):
            report = checked("sgd")
        where = "average"
    assert report.first is not None
    assert report.first.tensor == where
