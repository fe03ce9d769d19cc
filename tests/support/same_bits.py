"""A thousand steps of each of a few networks, which together use every native kernel of training, and their SHA-256.

Nothing here depends on the machine: weights, rows and targets are made of Philox words by integer arithmetic and powers
of two, orders are those of the rows, and the scalars of a step by arithmetic that IEEE 754 rounds correctly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from backprop_gpu.backends.cpu import library, recording, schedule, thread_pool
from backprop_gpu.backends.cpu.autotuner import Autotuner
from backprop_gpu.maths.random import philox_words
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.network.targets import check_targets
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.epoch import CapturedEpoch

STEPS = 1000
# Who changes a formula on purpose changes these: a run of the tests shows the new ones (as of native/tests/law.cpp).
FLOAT32 = "5393a911b3c06711df8f93031cd0d662e3b38dc83bb5765dec987c9de941fa09"
FLOAT64 = "0568d0250415c52ac2aeb53eabe04f1d8b934fd4c61d0e8ae66520865ded60a7"


class Beta(float):
    """A number whose powers are rounded once from their exact values, which those of a math library need not be."""

    def __pow__(self, t: Any) -> float:  # type: ignore[override]
        return float(Fraction(self) ** int(t))


B1, B2 = Beta(0.875), Beta(0.984375)
MOMENTS = {"learning_rate": 2**-8, "beta1": B1, "beta2": B2, "epsilon": 2**-20}

# Small layers, odd sizes; rows do not divide into batches. ``large`` has several blocks of examples and of parameters.
CASES: dict[str, dict[str, Any]] = {
    "sgd, softmax of labels": {"activation": ["relu", "tanh"], "optimizer": "sgd", "penalties": (0.0, 0.125)},
    "momentum, smoothed softmax": {
        "activation": ["gelu", {"name": "leaky_relu", "slope": 0.0625}],
        "loss": {"name": "categorical_cross_entropy", "label_smoothing": 0.125},
        "optimizer": {"name": "momentum", "learning_rate": 2**-6, "momentum": 0.875, "average": Beta(0.96875)},
        "clip_norm": 0.25,
    },
    "averaged momentum, groups": {
        "activation": ["silu", "elu"],
        "loss": {"name": "grouped_cross_entropy", "groups": [3, 2], "label_smoothing": 0.0625},
        "optimizer": {"name": "momentum", "variant": "average", "learning_rate": 2**-5},
        "dropout": 0.25,
    },
    "nesterov, binary": {
        "activation": ["sigmoid", "softplus"],
        "loss": {"name": "binary_cross_entropy", "label_smoothing": 0.125},
        "optimizer": {"name": "nesterov", "learning_rate": 2**-6, "momentum": 0.75},
        "weighted": True,
    },
    "rmsprop, squared error": {
        "activation": ["gelu_tanh", "softplus"],
        "loss": "squared_error",
        "optimizer": {"name": "rmsprop", "learning_rate": 2**-10, "rho": 0.96875, "epsilon": 2**-20},
        "penalties": (0.0625, 0.0),
        "batch_norm": True,
    },
    "adagrad, absolute error": {
        "activation": ["identity", "relu"],
        "loss": "absolute_error",
        "optimizer": {"name": "adagrad", "learning_rate": 2**-7, "epsilon": 2**-20},
        "dropout": 0.125,
        "clip_norm": 1.0,
    },
    "adam, huber": {
        "activation": ["tanh", "gelu"],
        "loss": {"name": "huber", "threshold": 0.375},
        "optimizer": {"name": "adam", **MOMENTS},
        "batch_norm": True,
        "dropout": 0.25,
        "weighted": True,
    },
    "adamw, poisson": {
        "activation": ["silu", "softplus"],
        "loss": "poisson",
        "optimizer": {"name": "adamw", **MOMENTS, "weight_decay": 0.0625, "average": Beta(0.875)},
        "schedule": {"name": "linear_warmup", "warmup": 64},
        "one_over_m": "late",
    },
    "amsgrad, quantiles": {
        "activation": ["elu", "sigmoid"],
        "loss": {"name": "quantile", "quantiles": [0.125, 0.5, 0.75]},
        "outputs": 6,
        "optimizer": {"name": "amsgrad", **MOMENTS},
        "penalties": (0.03125, 0.0625),
    },
    "lion": {
        "activation": ["leaky_relu", "gelu_tanh"],
        "loss": "squared_error",
        "outputs": 1,
        "optimizer": {"name": "lion", "learning_rate": 2**-11, "beta1": 0.875, "beta2": 0.984375},
        "micro_batch": 16,
    },
    "large: decaying lion, dropout, clipping, weights": {
        "sizes": [20, 72, 45],
        "activation": ["relu", "gelu"],
        "optimizer": {"name": "lion", "learning_rate": 2**-12, "beta1": 0.875, "weight_decay": 0.5},
        "rows": 1000,
        "batch_size": 611,
        "dropout": 0.25,
        "weighted": True,
        "clip_norm": 0.125,
        "penalties": (0.0625, 0.125),
    },
}


class Words:
    """Philox words of counters that go on from call to call."""

    def __init__(self, seed: int) -> None:
        self._seed, self._next = seed, 0

    def __call__(self, *shape: int) -> np.ndarray:
        """32-bit words, as int64."""
        n = int(np.prod(shape))
        counters = np.arange(self._next, self._next + n, dtype=np.int64)
        self._next += n
        return np.asarray(philox_words(np, self._seed, (counters, 0, 0, 0))[0]).reshape(shape)

    def numbers(self, *shape: int) -> np.ndarray:
        """Multiples of 2^-20 in [-1, 1): exact in float32 and float64."""
        return (self(*shape) >> 11) * 2.0**-20 - 1.0


def targets(words: Words, loss: Any, n: int, outputs: int) -> np.ndarray:
    """(n, k) of the kind that a loss takes."""
    name = loss if isinstance(loss, str) else loss["name"]
    if name == "categorical_cross_entropy":
        labels = words(n, 1) % outputs
        return labels if isinstance(loss, str) else np.eye(outputs)[labels[:, 0]]
    if name == "grouped_cross_entropy":
        return np.hstack([np.eye(k)[words(n) % k] for k in loss["groups"]])
    if name == "quantile":
        return words.numbers(n, outputs // len(loss["quantiles"]))
    if name in ("binary_cross_entropy", "poisson"):
        return (words(n, outputs) % (2 if name[0] == "b" else 5)).astype(np.float64)
    return words.numbers(n, outputs)


def make(case: dict[str, Any], dtype: str, micro_batch: int | None = None) -> CapturedEpoch:
    """An epoch of a case, not begun."""
    words = Words(sum(map(ord, str(case))))
    loss, outputs = case.get("loss", "categorical_cross_entropy"), case.get("outputs", 5)
    sizes = [*case.get("sizes", [7, 21, 13]), outputs]
    settings = {name: case[name] for name in ("dropout", "batch_norm") if name in case}
    net = DenseNet(
        sizes,
        activation=case["activation"],
        loss=loss,
        dtype=dtype,
        device="numpy",
        kernels="native",
        seed=7,
        **settings,
    )
    net.set_parameters(
        {
            name: start if name[0] in "gmv" else words.numbers(*start.shape) / 4
            for name, start in net.parameters().items()
        }
    )
    n = case.get("rows", 101)
    X, Y = words.numbers(n, sizes[0]), check_targets(targets(words, loss, n, outputs), net.loss, outputs, n)
    weights = (1 + words(n, 1) % 4) / 2.0 if case.get("weighted") else None
    l1, l2 = case.get("penalties", (0.0, 0.0))
    named = {name: case[name] for name in ("clip_norm", "schedule", "one_over_m") if name in case}
    step = TrainingStep(net, case["optimizer"], total_steps=STEPS, l1=l1, l2=l2, **named)
    batches = Batches(net, X, Y, weights, batch_size=case.get("batch_size", 37), shuffle=False, seed=0)
    return CapturedEpoch(step, batches, micro_batch or case.get("micro_batch"))


def results(made: CapturedEpoch, steps: int) -> list[np.ndarray]:
    """Parameters, the optimizer's vectors, the last epoch's costs and the logits, after so many steps or a few more."""
    costs = [made.run(epoch) for epoch in range(-(-steps // len(made.batches)))]
    net = made.step.net
    ws = net.workspace(made.batches.n, train=False)
    ws.A[0] = net.upload_columns(made.batches.rows[0])
    found = [*net.parameters().values(), *made.step.optimizer_state, costs[-1], net.forward(ws)]
    assert all(np.isfinite(x).all() for x in found)
    return found


def sha256(dtype: str, steps: int = STEPS) -> str:
    """Of every case."""
    digest = hashlib.sha256()
    for case in CASES.values():
        for x in results(make(case, dtype), steps):
            digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()


def use_threads(count: int, patch: Callable[[object, str, Any], None] = setattr) -> None:
    """Every step in as many chunks as there are units for, on so many threads; 1: serially."""
    pool = thread_pool.ThreadPool(library.native_library(), count)
    patch(recording, "thread_pool", lambda: pool)
    for module in (recording, thread_pool):
        patch(module, "thread_limit", lambda: count)
    patch(thread_pool, "SERIAL_NANOSECONDS", 0)
    for name in ("CHUNK_FLOPS", "MORE_FLOPS", "CHUNK_NANOSECONDS"):
        patch(schedule, name, 1)
    patch(Autotuner, "next", lambda self, times: (True, min(times, 100)))


def main(threads: int, path: str = "") -> None:
    """Print the instruction set and the hashes, of the library at ``path`` if it is given."""
    if path:
        library.installed_path = lambda: Path(path)
    use_threads(threads)
    print(library.native_library().instruction_set, sha256("float32"), sha256("float64"))
