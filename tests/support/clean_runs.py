"""Random networks on honest devices: whatever parity finds wrong with one of them is a false alarm.

Run number ``i`` of a seed is always the same network and data. The standard library and NumPy are enough;
array_api_strict and torch take part where they are installed, the native kernels where their library is.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from support.orders import ORDERS, HalfKernels, With, with_product

from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.parity.checking import check
from backprop_gpu.parity.report import Report

EXAMPLES = (1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 61, 63, 65)
WIDTHS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 33, 64, 100)
ACTIVATIONS: tuple[Any, ...] = (
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "relu",
    "leaky_relu",
    {"name": "leaky_relu", "slope": 0.3},
    "elu",
    {"name": "elu", "alpha": 0.6},
    "gelu",
    "gelu_tanh",
    "silu",
    "softplus",
    "selu",
    "mish",
)
PLAIN: tuple[Any, ...] = (
    "binary_cross_entropy",
    "categorical_cross_entropy",
    {"name": "categorical_cross_entropy", "label_smoothing": 0.1},
    "squared_error",
    "absolute_error",
    {"name": "huber", "threshold": 0.7},
    "poisson",
)
# What every second run has in the place of a plain loss.
VARIANTS: dict[str, Any] = {
    "binary_cross_entropy": {"name": "binary_cross_entropy", "label_smoothing": 0.2},
    "absolute_error": {"name": "quantile", "quantiles": [0.07, 0.5]},
    "squared_error": {"name": "grouped_cross_entropy", "groups": [3, 1, 2]},
}
LOSSES: tuple[Any, ...] = (*PLAIN, *VARIANTS.values())
RULES: tuple[Any, ...] = (
    "sgd",
    {"name": "momentum", "momentum": 0.8},
    {"name": "momentum", "variant": "average"},
    "nesterov",
    "rmsprop",
    "adagrad",
    "adam",
    {"name": "adam", "variant": "epsilon_hat", "epsilon": 1e-6},
    {"name": "adamw", "weight_decay": 0.05},
    "amsgrad",
    {"name": "lion", "weight_decay": 0.1},
)
# What every second run has in the place of a plain rule.
AVERAGED: dict[str, Any] = {name: {"name": name, "average": 0.9} for name in ("sgd", "adam", "amsgrad")}
OPTIMIZERS: tuple[Any, ...] = (*RULES, *AVERAGED.values())
SCHEDULES: tuple[Any, ...] = (
    "constant",
    {"name": "step", "every": 2, "gamma": 0.3},
    "exponential",
    "inverse_scaling",
    {"name": "cosine", "floor": 0.1},
    {"name": "linear_warmup", "warmup": 2, "floor": 0.2},
    "one_cycle",
)


NATIVE = "numpy native"
ALWAYS = ("numpy reference", *(f"order {name}" for name in ORDERS), "fp16 emulated")
# Name of a device -> what must be installed.
OPTIONAL = {
    "array_api_strict reference": ("array_api_strict",),
    "torch:cpu reference": ("torch", "array_api_compat"),
}
FLOAT64 = ("numpy reference", "numpy native", "array_api_strict reference", "torch:cpu reference")


def devices() -> list[str]:
    """What can be had here: names that :func:`run` knows."""
    native = [] if unavailable_reason() else [NATIVE]
    return [*ALWAYS, *native, *(n for n, needs in OPTIONAL.items() if all(importlib.util.find_spec(m) for m in needs))]


@dataclass(frozen=True)
class Run:
    """One network, its data and how it is trained, on one device."""

    device: str
    dtype: str
    claim: str
    sizes: tuple[int, ...]
    m: int
    steps: int
    net: dict[str, Any]
    settings: dict[str, Any]
    scale: float
    weighted: bool
    seed: int = 0
    tags: dict[str, Any] = field(default_factory=dict)

    def data(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Rows, targets and weights; some features are 0 throughout, some rows repeat."""
        rng = np.random.default_rng(self.seed)
        n_0, n_L = self.sizes[0], self.sizes[-1]
        X = rng.standard_normal((self.m, n_0)) * self.scale
        X[:, rng.random(n_0) < 0.1] = 0.0
        X[rng.random((self.m, n_0)) < 0.1] = 0.0
        loss = self.net["loss"]["name"] if isinstance(self.net["loss"], dict) else self.net["loss"]
        w = rng.integers(0, 4, self.m) * rng.choice([1.0, 0.37]) if self.weighted else None
        if w is not None:
            w[0] = 1.0
        if loss == "categorical_cross_entropy":
            labels = rng.integers(0, n_L, self.m)
            soft = rng.random() < 0.3
            return X, rng.dirichlet(np.ones(n_L), self.m) if soft else labels, w
        if loss == "grouped_cross_entropy":
            labels = [rng.integers(0, n, self.m) for n in self.net["loss"]["groups"]]
            return X, np.hstack([np.eye(n)[y] for n, y in zip(self.net["loss"]["groups"], labels, strict=True)]), w
        if loss == "binary_cross_entropy":
            soft = rng.random() < 0.2
            return X, rng.random((self.m, n_L)) if soft else rng.integers(0, 2, (self.m, n_L)), w
        if loss == "poisson":
            return X, rng.poisson(2.0, (self.m, n_L)), w
        return X, rng.standard_normal((self.m, n_L)), w


def plan(i: int, seed: int = 0, only: Sequence[str] | None = None) -> Run:
    """Run number i of a seed."""
    rng = np.random.default_rng([seed, i])
    device = str(rng.choice(list(only or [*ALWAYS, NATIVE, *OPTIONAL])))
    if device not in devices():  # the run stays the same, but for where it takes place
        device = "numpy reference"

    def one(options: Sequence[Any]) -> Any:
        return options[int(rng.integers(len(options)))]

    loss, half = one(PLAIN), device == "fp16 emulated"
    loss = VARIANTS.get(str(loss), loss) if i % 2 else loss
    depth = int(rng.integers(1, 5))
    sizes = [int(one(WIDTHS)) for _ in range(depth + 1)]
    if (isinstance(loss, dict) and loss["name"].startswith("cat")) or loss == "categorical_cross_entropy":
        sizes[-1] = max(sizes[-1], 2)
    if isinstance(loss, dict) and loss["name"] == "quantile":
        sizes[-1] += sizes[-1] % 2
    if isinstance(loss, dict) and "groups" in loss:
        sizes[-1] = sum(loss["groups"])
    dtype = "float64" if rng.random() < 0.4 and device in FLOAT64 else "float32"
    m = int(one(EXAMPLES))
    settings: dict[str, Any] = {
        "optimizer": one(RULES),
        "schedule": one(SCHEDULES),
        "total_steps": 4,
        "delta": one(("fused", "fused", "literal")),
        "one_over_m": one(("early", "late")),
        "reduction": one(("mean", "mean", "sum")),
        "l1": one((0.0, 0.0, 0.01)),
        "l2": one((0.0, 0.0, 0.5)),
        "penalty_over": one(("examples", "none")),
        "clip_norm": one((None, None, 0.05, 100.0)),
        "micro_batch": one((None, None, max(1, m // 3), max(1, m - 1))),
    }
    if i % 2:
        settings["optimizer"] = AVERAGED.get(str(settings["optimizer"]), settings["optimizer"])
    net = {
        "activation": [one(ACTIVATIONS) for _ in range(depth - 1)],
        "loss": loss,
        "dropout": [one((0.0, 0.0, 0.2, 0.5)) for _ in range(depth - 1)] or 0.0,
        "seed": int(rng.integers(2**40)),
    }
    if i % 4 == 3:
        net["batch_norm"] = [bool((i >> (2 + l)) & 1) for l in range(depth - 1)] or False
        if np.any(net["batch_norm"]):  # which needs two examples in a pass
            m, settings["micro_batch"] = max(m, 2), settings["micro_batch"] and max(settings["micro_batch"], 2)
    claim = "fp16" if half else "fp64" if dtype == "float64" else "fp32"
    scale = float(one((1.0,) if half else (1.0, 1.0, 1e-4, 30.0)))
    steps = int(one((1, 2, 3)))
    weighted, number = bool(rng.random() < 0.3), int(rng.integers(2**31))
    return Run(device, dtype, claim, tuple(sizes), m, steps, net, settings, scale, weighted, number)


def run(r: Run) -> Report:
    """Check one run."""
    kind = "reference"
    if r.device.startswith("order "):
        device: Any = with_product(ORDERS[r.device.removeprefix("order ")])
    elif r.device == "fp16 emulated":
        device = With(HalfKernels)
    else:
        device, _, kind = r.device.partition(" ")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow in a huge logit is the network's, not the check's
        net = DenseNet(r.sizes, dtype=r.dtype, device=device, kernels=kind, **r.net)
        X, y, w = r.data()
        return check(net, X, y, sample_weight=w, dtype=r.dtype, claim=r.claim, steps=r.steps, **r.settings)
