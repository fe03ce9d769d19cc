"""The networks whose steps are replayed, as data: what is built on a device, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from support.backends import Case

from backprop_gpu.maths.activations import get_activation
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.trace import TraceSpec


@dataclass(frozen=True)
class Plan:
    """A network, how it is trained, and whether its examples are weighted. ``m`` examples, split by ``micro_batch``."""

    sizes: tuple[int, ...]
    activations: tuple[Any, ...]
    loss: Any
    optimizer: dict[str, Any]
    m: int
    dropout: tuple[float, ...] = ()
    weighted: bool = False
    micro_batch: int | None = None
    seed: int = 11
    training: dict[str, Any] = field(default_factory=dict)

    def net(self, case: Case, dtype: str) -> DenseNet:
        return DenseNet(
            self.sizes,
            activation=list(self.activations),
            loss=self.loss,
            dropout=list(self.dropout) or 0.0,
            dtype=dtype,
            device=case.backend,
            seed=self.seed,
            kernels=case.kind,
        )

    def step(self, case: Case, dtype: str = "float32") -> TrainingStep:
        """A fresh network on the device, with its optimizer."""
        return TrainingStep(self.net(case, dtype), self.optimizer, **self.training)

    def assert_asked(self, spec: TraceSpec) -> None:
        """A recorded step was judged by what is asked for here: what is not said is at its default."""
        how, named = self.training, self.loss if isinstance(self.loss, dict) else {"name": self.loss}
        assert spec.sizes == self.sizes
        assert [tuple(a) for a in spec.activations] == [
            (a.name, dict(a.parameters)) for a in map(get_activation, self.activations)
        ]
        loss = {"name": spec.loss} | spec.loss_parameters
        assert {key: tuple(x) if isinstance(x, list) else x for key, x in named.items()}.items() <= loss.items()
        assert self.optimizer.items() <= ({"name": spec.optimizer} | spec.optimizer_parameters).items()
        assert list(spec.dropout) == list(self.dropout or (0.0,) * (len(self.sizes) - 2))
        assert (spec.seed, spec.micro_batch) == (self.seed, self.micro_batch)
        assert spec.schedule == how.get("schedule", "constant")
        assert spec.form == how.get("delta", "fused")
        assert spec.one_over_m == how.get("one_over_m", "early")
        assert (spec.l1, spec.l2) == (how.get("l1", 0.0), how.get("l2", 0.0))
        assert (spec.reduction, spec.clip_norm) == (how.get("reduction", "mean"), how.get("clip_norm"))

    def batch(self, t: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Step t's X (n_0, m), Y (n_L, m) or (1, m) labels, and weights (1, m) or None, on the host."""
        rng = np.random.default_rng([self.seed, t])
        X = rng.standard_normal((self.sizes[0], self.m)).astype(dtype)
        n, name = self.sizes[-1], self.loss["name"] if isinstance(self.loss, dict) else self.loss
        teacher = np.random.default_rng(self.seed).standard_normal((n, self.sizes[0])) @ X
        w = rng.integers(0, 4, (1, self.m)).astype(dtype) + np.eye(1, self.m, dtype=dtype) if self.weighted else None
        if name == "categorical_cross_entropy":
            return X, teacher.argmax(axis=0)[None, :].astype(np.int64), w
        if name == "grouped_cross_entropy":
            ends = np.cumsum(self.loss["groups"])
            each = [teacher[end - k : end] for end, k in zip(ends, self.loss["groups"], strict=True)]
            return X, np.vstack([part == part.max(axis=0) for part in each]).astype(dtype), w
        if name == "binary_cross_entropy":
            return X, (teacher > 0.0).astype(dtype), w
        if name == "poisson":
            return X, rng.poisson(np.exp(0.3 * teacher)).astype(dtype), w
        return X, (0.5 * teacher + 0.1 * rng.standard_normal(teacher.shape)).astype(dtype), w


PLANS: dict[str, Plan] = {
    "relu-bce-adam-dropout": Plan(
        sizes=(20, 33, 17, 1),
        activations=("relu", "relu"),
        loss="binary_cross_entropy",
        optimizer={"name": "adam", "learning_rate": 3e-3},
        m=48,
        dropout=(0.2, 0.35),
    ),
    "tanh-gelu-categorical-momentum-l2-clip-weights": Plan(
        sizes=(13, 24, 19, 5),
        activations=("tanh", "gelu"),
        loss={"name": "categorical_cross_entropy", "label_smoothing": 0.1},
        optimizer={"name": "momentum", "learning_rate": 0.05, "momentum": 0.9},
        m=41,
        dropout=(0.15, 0.0),
        weighted=True,
        training={"l2": 0.7, "clip_norm": 0.5, "schedule": "cosine", "total_steps": 120},
    ),
    "silu-elu-huber-adamw-micro-late-literal": Plan(
        sizes=(9, 21, 12, 3),
        activations=("silu", {"name": "elu", "alpha": 0.8}),
        loss={"name": "huber", "threshold": 0.7},
        optimizer={"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.02},
        m=37,
        dropout=(0.0, 0.25),
        micro_batch=15,
        training={"delta": "literal", "one_over_m": "late"},
    ),
    "tanh-grouped-adam-micro-late-weights": Plan(
        sizes=(8, 14, 6),
        activations=("tanh",),
        loss={"name": "grouped_cross_entropy", "groups": [3, 1, 2], "label_smoothing": 0.1},
        optimizer={"name": "adam", "learning_rate": 3e-3},
        m=31,
        weighted=True,
        micro_batch=12,
        training={"one_over_m": "late", "l2": 0.1},
    ),
    "softplus-leaky-squared-lion-micro-l1": Plan(
        sizes=(7, 16, 10, 2),
        activations=("softplus", "leaky_relu"),
        loss="squared_error",
        optimizer={"name": "lion", "learning_rate": 1e-3, "weight_decay": 0.1},
        m=29,
        weighted=True,
        micro_batch=8,
        training={"l1": 0.05, "one_over_m": "late"},
    ),
}
