"""Fits on the ranks that started this: prints, from rank 0, a line of JSON with each fit's weights and costs.

With the name of a folder: also of a fit that a signal ends and that goes on, and what is said of ranks that differ; the
last rank's process is then stopped, and the others say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from backprop_gpu import Callback, Checkpoint, DenseNet, History, Trainer
from backprop_gpu.backends.collective import MPIRanks, launched
from backprop_gpu.errors import BackpropError, Stopped
from backprop_gpu.training.signals import Signals

CASES: dict[str, dict[str, Any]] = {
    "plain": {"batch_size": 1792},
    "tail": {"batch_size": 1024},
    "dropout": {"batch_size": 1792, "dropout": 0.2},
    "weights": {"batch_size": 1792, "weighted": True, "clip_norm": 0.5, "l2": 0.1},
    "float64": {"batch_size": 1792, "dtype": "float64"},
    "micro-batches": {"batch_size": 1792, "micro_batch": 256},
    "large": {"hidden": (200, 90), "epochs": 1},
    "even": {"batch_size": 100, "exact_ranks": False, "dropout": 0.1, "weighted": True},
    "fewer examples than ranks": {"batch_size": 500, "exact_ranks": False, "rows": 502},
}
EXACT = ("plain", "tail", "dropout", "weights", "float64", "large")


class At(Callback):
    """Does something after an epoch."""

    def __init__(self, epoch: int, what: Callable[[], Any]) -> None:
        self._epoch, self._what = epoch, what

    def on_epoch(self, epoch: Any) -> None:
        """See above."""
        if epoch.epoch == self._epoch:
            self._what()


def fit(resume: str | None = None, scale: float = 1.0, **given: Any) -> tuple[DenseNet, History]:
    """A network, trained."""
    settings: dict[str, Any] = {"epochs": 2, "exact_ranks": True, "batch_size": 1792} | given
    n, weighted = settings.pop("rows", 2500), settings.pop("weighted", False)
    network = {key: settings.pop(key) for key in ("dropout", "dtype") if key in settings}
    rng = np.random.default_rng(settings.pop("data_seed", 0))
    X, weights = rng.standard_normal((n, 6)), rng.random(n) if weighted else None
    net = DenseNet([6, *settings.pop("hidden", (20, 9)), 1], activation="gelu", device="cpu", seed=1, **network)
    net.params.theta *= scale
    trainer = Trainer(net, progress=False, ranks=launched(), **settings)
    return net, trainer.fit(X, (X[:, 0] * X[:, 1] > 0).astype(int), sample_weight=weights, resume=resume)


def fits() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each case's weights, their digest and the costs of its epochs."""
    for name, given in CASES.items():
        net, history = fit(**given)
        yield name, {"weights": net.params.theta.tolist(), "costs": [epoch.cost for epoch in history.epochs]} | of(net)


def of(net: DenseNet) -> dict[str, str]:
    """The digest of a network's weights."""
    return {"digest": hashlib.sha256(net.params.theta.tobytes()).hexdigest()}


def estimator() -> dict[str, str]:
    """Of a classifier whose fit the ranks share."""
    from backprop_gpu.estimators import MLPClassifier
    from backprop_gpu.training.ranks import share_fits

    X = np.random.default_rng(0).standard_normal((2500, 6))
    given: dict[str, Any] = {"batch_size": 1024, "max_iter": 2, "n_iter_no_change": 9, "random_state": 0}
    with share_fits(exact=True):
        found = MLPClassifier([20, 9], dropout=0.1, early_stopping=True, **given).fit(X, X[:, 0] * X[:, 1] > 0)
    return of(found.network())


def stopped_and_gone_on_with(folder: str) -> dict[str, Any]:
    """A fit whose last rank gets a signal; all end it after the same step, and go on."""
    ranks, signals = launched(), Signals()
    callbacks: list[Callback] = [] if ranks.rank else [Checkpoint(folder, every_steps=1000)]
    if ranks.rank == ranks.size - 1:
        callbacks.append(At(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    try:
        fit(epochs=20, callbacks=[*callbacks, signals])
    except Stopped as stop:
        code = stop.exit_code
    finally:
        signals.restore()
    ranks.agree("folder", folder)  # the checkpoint is there
    net, history = fit(folder, epochs=20)
    return {"code": code, "epochs": len(history.epochs)} | of(net)


def refused() -> Iterator[str]:
    """What is said where the last rank has something else."""
    for other in ({"optimizer": "sgd"}, {"data_seed": 1}, {"scale": 1.1}):
        try:
            fit(**other if launched().rank == launched().size - 1 else {})
        except BackpropError as error:
            yield str(error)


if __name__ == "__main__":
    found = dict(fits())
    if sys.argv[1:]:
        warnings.simplefilter("ignore")  # of epochs that ran out
        found["estimator"] = estimator()
        found["stopped"] = stopped_and_gone_on_with(sys.argv[1])
        found["refused"] = list(refused())
    ranks = launched()
    if ranks.rank == 0:
        print(json.dumps(found), flush=True)
    if sys.argv[1:]:
        assert isinstance(ranks, MPIRanks)
        ranks.agree("time", "now")
        ranks.timeout = 2.0
        if ranks.rank == ranks.size - 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        fit()
