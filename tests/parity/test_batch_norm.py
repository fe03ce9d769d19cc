"""Parity of normalized layers: honest devices are found right, and faults are found where they enter."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.maths.activations import get_activation
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.checking import check, replay
from backprop_gpu.parity.report import Report

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)), RNG.integers(0, 2, 20)
W = RNG.integers(0, 3, 20) + np.eye(1, 20)[0]


def checked(device: Any, kernels: str = "reference", dtype: str = "float32", **settings: Any) -> Report:
    given = {"activation": ["tanh", "gelu"], "batch_norm": True, "dropout": [0.2, 0.0]}
    given |= {key: settings.pop(key) for key in list(settings) if key in given}
    net = DenseNet([4, 6, 5, 1], device=device, kernels=kernels, dtype=dtype, seed=3, **given)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        return check(net, X, Y, dtype=dtype, **settings)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases())
def test_honest_devices_are_found_right(case: Case, dtype: str) -> None:
    pairs = itertools.product(("early", "late"), (None, 7), (None, W))
    activations = itertools.cycle((["tanh", "relu"], ["gelu", {"name": "elu", "alpha": 0.7}], ["softplus", "silu"]))
    for (one_over_m, size, w), activation in zip(pairs, activations, strict=False):
        how = {"one_over_m": one_over_m, "micro_batch": size, "sample_weight": w, "activation": activation}
        report = checked(case.backend, case.kind, dtype, l2=0.3, steps=2, **how)
        assert report.ok, report.summary()
        assert not [f for f in report.findings if f.status == "warning"]
        names = {f.tensor for f in report.findings}
        each = ("Z", "inverse_std", "running mean", "running variance", "X", "A", "dU", "db", "dZ", "dgamma", "dW")
        assert {f"{name}{l}" for name in each for l in (1, 2)} <= names


def test_a_step_is_written_down_and_judged_again(tmp_path: Path) -> None:
    report = checked("numpy", batch_norm=[False, True], sample_weight=W)
    report.save(tmp_path / "case")
    again = replay(tmp_path / "case")
    assert [f.ratio for f in again.findings] == [
        f.ratio for f in report.findings if f.tensor not in ("X", "Y", "weights", "predicted AL")
    ]


class Faulty(ReferenceKernels):
    """One operation with one fault in the layer of six units."""

    def __init__(self, backend: Any, name: str, act: Callable[[Any], None], after: bool) -> None:
        super().__init__(backend)
        honest = getattr(ReferenceKernels, name)

        def wrong(*args: Any, **kwargs: Any) -> None:
            keys = list(honest.__annotations__)[: len(args)]
            c = SimpleNamespace(**dict(zip(keys, args, strict=True)), **kwargs)
            here = getattr(c, "X", None) is not None and c.X.shape[0] == 6
            if here and not after:
                act(c)
            honest(self, **vars(c))
            if here and after:
                act(c)

        wrong.__signature__ = None  # type: ignore[attr-defined]
        self.__dict__[name] = wrong


def unbiased(c: Any) -> None:
    c.inverse_std[...] = c.inverse_std * np.sqrt(np.float32(19.0 / 20.0))


def eps_missing(c: Any) -> None:
    c.inverse_std[...] = 1.0 / np.sqrt(1.0 / c.inverse_std**2 - np.float32(1e-5))


def x_stale(c: Any) -> None:
    c.X[0] = np.roll(c.X[0], 1)


def momentum_turned_round(c: Any) -> None:
    c.mean[...] = c.mean * 9.0


def variance_untouched(c: Any) -> None:
    c.variance[...] = 1.0


def gamma_missing(c: Any) -> None:
    c.gamma = np.ones_like(c.gamma)


def beta_missing(c: Any) -> None:
    c.beta = np.zeros_like(c.beta)


def mean_of_dU_forgotten(c: Any) -> None:
    c.dZ[...] = c.dZ + c.gamma * c.inverse_std * c.dU.mean(axis=1, keepdims=True)


def x_forgotten(c: Any) -> None:
    c.dZ[...] = c.gamma * c.inverse_std * (c.dU - c.dU.mean(axis=1, keepdims=True))


def inverse_std_forgotten(c: Any) -> None:
    c.inverse_std = np.ones_like(c.inverse_std)


def dgamma_from_dZ(c: Any) -> None:
    c.dgamma[...] = np.sum(c.dZ * c.X, axis=1, keepdims=True)


def late_forgotten(c: Any) -> None:
    c.scale = None


FAULTS: list[tuple[str, Callable[[Any], None], bool, str]] = [
    ("batch_norm", unbiased, True, "inverse_std1"),
    ("batch_norm", eps_missing, True, "inverse_std1"),
    ("batch_norm", x_stale, True, "X1"),
    ("batch_norm", momentum_turned_round, True, "running mean1"),
    ("batch_norm", variance_untouched, True, "running variance1"),
    ("batch_norm", gamma_missing, False, "U1"),
    ("batch_norm", beta_missing, False, "U1"),
    ("batch_norm_vjp", mean_of_dU_forgotten, True, "dZ1"),
    ("batch_norm_vjp", x_forgotten, True, "dZ1"),
    ("batch_norm_vjp", inverse_std_forgotten, False, "dZ1"),
    ("batch_norm_vjp", gamma_missing, False, "dZ1"),
    ("batch_norm_vjp", dgamma_from_dZ, True, "dgamma1"),
    ("batch_norm_vjp", late_forgotten, False, "dgamma1"),
]


@pytest.mark.parametrize(("name", "act", "after", "where"), FAULTS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_a_fault_is_found_where_it_enters(name: str, act: Callable[[Any], None], after: bool, where: str) -> None:
    class Device(Backend):
        def kernels(self, kind: str = "auto") -> Any:
            return Faulty(self, name, act, after)

    report = checked(Device("numpy", np), one_over_m="late")
    assert report.first is not None
    assert report.first.tensor == where


def test_the_cause_of_a_wrong_activation_is_named_as_in_other_layers() -> None:
    class Device(Backend):
        def kernels(self, kind: str = "auto") -> Any:
            kernels = ReferenceKernels(self)
            honest = kernels.dense_vjp_input

            def wrong(W: Any, dZ: Any, activation: Any, dropout: Any, A: Any, saved: Any, **out: Any) -> None:
                honest(W, dZ, get_activation("identity"), dropout, A, saved, **out)

            kernels.dense_vjp_input = wrong  # type: ignore[method-assign]
            return kernels

    first = checked(Device("numpy", np), activation="tanh", dropout=0.0).first
    assert first is not None
    assert (first.tensor, first.cause) == ("dU2", "g' is missing: dZ is dA")
