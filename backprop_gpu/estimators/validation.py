"""A validation set on the device, judged after every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..maths.ledger import Denominator, weigh
from ..maths.losses import GroupedCrossEntropy
from ..network.dense_net import BLOCK_ROWS, DenseNet
from ..network.memory import Workspace
from ..training.metrics import SEVERAL, check_metrics, evaluate, evaluate_several
from ..training.trainer import task_of


@dataclass
class HeldOut:
    """Rows that are not trained on: X (n, n_0); Y (n, n_L) as the loss takes it, classes one-hot; weights (n, 1)."""

    X: np.ndarray
    Y: np.ndarray
    weights: np.ndarray | None


class Validation:
    """A held-out set in blocks on the network's device, with the buffers of a forward pass.

    Parameters
    ----------
    net : DenseNet
    rows : HeldOut
    metrics : tuple of str
        Names of ``training.metrics``, beside scikit-learn's score (accuracy, or r2).
    """

    def __init__(self, net: DenseNet, rows: HeldOut, metrics: tuple[str, ...]) -> None:
        self.net, self.judge_outputs = net, _metrics_of(net, rows, metrics)
        self.score = "r2" if net.loss.labels == "values" else "accuracy"
        self.shape = rows.Y.shape
        self.blocks: list[tuple[slice, Any, Any, Any]] = []
        self._workspaces: dict[int, Workspace] = {}
        n, up = rows.X.shape[0], net.backend.asarray
        with net.backend.activate():
            for start in range(0, n, BLOCK_ROWS):
                part = slice(start, min(start + BLOCK_ROWS, n))
                m = part.stop - part.start
                if m not in self._workspaces:
                    self._workspaces[m] = net.workspace(m, train=False)
                w = None if rows.weights is None else up(rows.weights[part], net.dtype).T
                self.blocks.append((part, up(rows.X[part], net.dtype).T, up(rows.Y[part], net.dtype).T, w))
        total = None if rows.weights is None else float(rows.weights.sum())
        self.inverse = Denominator.of("mean", n, total).inverse

    def judge(self) -> dict[str, float]:
        """``cost`` (without penalty) and the metrics, of the network as it is; NaN where its outputs are not finite."""
        net, xp = self.net, self.net.backend.xp
        AL, total = np.empty(self.shape, net.dtype), 0.0
        with net.backend.activate(), np.errstate(all="ignore"):
            for part, X, Y, w in self.blocks:
                ws = self._workspaces[X.shape[1]]
                ws.A[0] = X
                Z = net.forward(ws)
                AL[part] = net.backend.to_host(net.loss.link.forward(xp, Z)).T
                total += float(net.backend.to_host(xp.sum(weigh(xp, w, net.loss.value(xp, Z, Y)))))
            judged = self.judge_outputs(AL)
        if not np.isfinite(AL).all():
            judged = dict.fromkeys(judged, float("nan"))
        return {"cost": total * self.inverse, **judged}


def _metrics_of(net: DenseNet, rows: HeldOut, metrics: tuple[str, ...]) -> Callable[[np.ndarray], dict[str, float]]:
    """The score and the metrics as a function of AL (n, n_L)."""
    weights, loss = None if rows.weights is None else rows.weights.reshape(-1), net.loss
    task = SEVERAL if isinstance(loss, GroupedCrossEntropy) else task_of(net)
    check_metrics(metrics, task)
    names = list(dict.fromkeys(["r2" if task == "regression" else "accuracy", *metrics]))
    if isinstance(loss, GroupedCrossEntropy):
        ends = np.cumsum(loss.groups)[:-1]
        codes = np.column_stack([part.argmax(axis=1) for part in np.split(rows.Y, ends, axis=1)])
        return lambda AL: evaluate_several(names, codes, np.split(AL, ends, axis=1), weights)
    truth = rows.Y.argmax(axis=1) if task == "multiclass" else rows.Y
    truth = loss.point(truth) if task == "regression" else truth
    return lambda AL: evaluate(names, task, truth, loss.point(AL), weights)
