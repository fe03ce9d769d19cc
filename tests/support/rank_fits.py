"""Fits on the ranks that started this: prints, from rank 0, a line of JSON with each fit's weights and costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from backprop_gpu import DenseNet, Trainer
from backprop_gpu.backends.collective import launched

CASES: dict[str, dict[str, Any]] = {
    "plain": {"batch_size": 1792},
    "tail": {"batch_size": 1024},
    "dropout": {"batch_size": 1792, "dropout": 0.2},
    "weights": {"batch_size": 1792, "weighted": True, "clip_norm": 0.5, "l2": 0.1},
    "float64": {"batch_size": 1792, "dtype": "float64"},
    "micro-batches": {"batch_size": 1792, "micro_batch": 256},
    "even": {"batch_size": 100, "exact_ranks": False, "dropout": 0.1, "weighted": True},
    "fewer examples than ranks": {"batch_size": 500, "exact_ranks": False, "rows": 502},
}
EXACT = ("plain", "tail", "dropout", "weights", "float64")


def fits() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each case's weights, their digest and the costs of its epochs."""
    for name, given in CASES.items():
        settings = {"exact_ranks": True} | given
        n, weighted = settings.pop("rows", 2500), settings.pop("weighted", False)
        network = {key: settings.pop(key) for key in ("dropout", "dtype") if key in settings}
        rng = np.random.default_rng(0)
        X, weights = rng.standard_normal((n, 6)), rng.random(n) if weighted else None
        net = DenseNet([6, 20, 9, 1], activation="gelu", device="cpu", seed=1, **network)
        trainer = Trainer(net, epochs=2, progress=False, ranks=launched(), **settings)
        history = trainer.fit(X, (X[:, 0] * X[:, 1] > 0).astype(int), sample_weight=weights)
        theta = net.params.theta
        yield (
            name,
            {
                "digest": hashlib.sha256(theta.tobytes()).hexdigest(),
                "weights": theta.tolist(),
                "costs": [epoch.cost for epoch in history.epochs],
            },
        )


if __name__ == "__main__":
    found = dict(fits())
    if launched().rank == 0:
        print(json.dumps(found))
