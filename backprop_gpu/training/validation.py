"""A validation set on the device, on which a network is evaluated after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._typing import Program
from ..backends.base import Backend
from ..maths.ledger import Denominator, weigh
from ..maths.losses import GroupedCrossEntropy
from ..network.dense_net import BLOCK_ROWS, DenseNet
from ..network.members import mean_output
from ..network.memory import Workspace
from .metrics import SEVERAL, check_metrics, evaluate, evaluate_several
from .pauses import sequence
from .trainer import task_of

if TYPE_CHECKING:
    from .loop import FitState

Block: TypeAlias = tuple[slice, Any, Any, Any]


@dataclass
class ValidationSet:
    """Rows that are not trained on.

    Attributes
    ----------
    X : (n, n_0)
    Y : (n, n_L)
        As the loss takes it, classes one-hot.
    weights : (n, 1) or None
    units : callable or None
        Values (n, n_L) as the loss takes them to those of y, where they differ: metrics are in the units of y.
    """

    X: np.ndarray
    Y: np.ndarray
    weights: np.ndarray | None
    units: Callable[[np.ndarray], np.ndarray] | None = None
    _placed: dict[tuple[Backend, str], list[Block]] = field(default_factory=dict, init=False, repr=False)

    @property
    def weighted(self) -> np.ndarray:
        """The targets of the rows that have a weight."""
        return self.Y if self.weights is None else self.Y[self.weights[:, 0] > 0.0]

    def blocks(self, backend: Backend, dtype: str) -> list[Block]:
        """Which rows, and X (n_0, m), Y (n_L, m), weights (1, m) or None on the device, where they lie once for all."""
        if (backend, dtype) not in self._placed:
            n, found = self.X.shape[0], list[Block]()
            with backend.activate():
                for part in (slice(start, min(start + BLOCK_ROWS, n)) for start in range(0, n, BLOCK_ROWS)):
                    X, Y, w = (
                        None if x is None else backend.asarray(x[part], dtype).T for x in (self.X, self.Y, self.weights)
                    )
                    found.append((part, X, Y, w))
            self._placed[backend, dtype] = found
        return self._placed[backend, dtype]


class Evaluation:
    """A validation set in blocks on the network's device, with the buffers of a forward pass.

    Parameters
    ----------
    net : DenseNet
    rows : ValidationSet
    metrics : tuple of str
        Names of ``training.metrics``, beside scikit-learn's score (accuracy, or r2).
    one_class : bool
        Whether there is one class, which is predicted whatever the output.
    """

    def __init__(self, net: DenseNet, rows: ValidationSet, metrics: tuple[str, ...], one_class: bool = False) -> None:
        self.net, self._scores_of = net, _metrics_of(net, rows, metrics, one_class)
        self.shape = rows.Y.shape
        self.blocks = rows.blocks(net.backend, net.dtype)
        self._workspaces: dict[int, Workspace] = {}
        with net.backend.activate():
            for m in {X.shape[1] for _, X, _, _ in self.blocks}:
                self._workspaces[m] = net.workspace(m, train=False)
        total = None if rows.weights is None else float(rows.weights.sum())
        self.inverse = Denominator.of("mean", rows.X.shape[0], total).inverse

    def program(self, block: int) -> Program:
        """The forward pass of a block."""
        X = self.blocks[block][1]
        ws = self._workspaces[X.shape[1]]

        def forward() -> None:
            ws.A[0] = X
            self.net.forward_members(ws)

        return forward

    def begin(self) -> None:
        """Before the first block."""
        self._AL, self._total = np.empty(self.shape, self.net.dtype), 0.0

    def take(self, block: int) -> None:
        """What the forward pass of a block has left."""
        net, xp, (part, X, Y, w) = self.net, self.net.backend.xp, self.blocks[block]
        logits = self._workspaces[X.shape[1]].logits
        self._AL[part] = net.backend.to_host(mean_output(xp, net.loss.link, logits)).T
        for Z in logits:
            self._total += float(net.backend.to_host(xp.sum(weigh(xp, w, net.loss.value(xp, Z, Y))))) / net.members

    def end(self) -> dict[str, float]:
        """``cost`` (without penalty) and the metrics; NaN where the outputs are not finite."""
        with np.errstate(all="ignore"):
            found = self._scores_of(self._AL)
        if not np.isfinite(self._AL).all():
            found = dict.fromkeys(found, float("nan"))
        return {"cost": self._total * self.inverse, **found}


class Evaluator:
    """Evaluates networks of one kernel set, block by block: the forward passes of all are one captured program.

    Parameters
    ----------
    evaluations : mapping of FitState to Evaluation
        Their sets have as many blocks of the same numbers of rows.
    """

    def __init__(self, evaluations: Mapping[FitState, Evaluation]) -> None:
        self._evaluations = dict(evaluations)
        self._chosen: list[Evaluation] = []

    def __call__(self, fits: Sequence[FitState]) -> list[dict[str, float]]:
        """``cost`` (without penalty) and the metrics of the network of each of these fits, as it is."""
        chosen = [self._evaluations[fit] for fit in fits]
        net = chosen[0].net
        with net.lock.held(), net.backend.activate(), np.errstate(all="ignore"):
            if chosen != self._chosen:
                blocks = range(len(chosen[0].blocks))
                self._replays = [net.kernels.capture(sequence([v.program(b) for v in chosen])) for b in blocks]
                self._chosen = chosen
            for v in chosen:
                v.begin()
            for block, replay in enumerate(self._replays):
                if block and net.between_blocks is not None:
                    net.between_blocks()
                replay(1)
                for v in chosen:
                    v.take(block)
            return [v.end() for v in chosen]


def _metrics_of(
    net: DenseNet, rows: ValidationSet, metrics: tuple[str, ...], one_class: bool
) -> Callable[[np.ndarray], dict[str, float]]:
    """The score and the metrics as a function of AL (n, n_L)."""
    weights, loss = None if rows.weights is None else rows.weights.reshape(-1), net.loss
    task = SEVERAL if isinstance(loss, GroupedCrossEntropy) else task_of(net)
    check_metrics(metrics, task)
    names = list(dict.fromkeys(["r2" if task == "regression" else "accuracy", *metrics]))
    if isinstance(loss, GroupedCrossEntropy):
        ends = np.cumsum(loss.groups)[:-1]
        codes = np.column_stack([part.argmax(axis=1) for part in np.split(rows.Y, ends, axis=1)])
        return lambda AL: evaluate_several(names, codes, np.split(AL, ends, axis=1), weights)
    if task != "regression":
        truth = rows.Y.argmax(axis=1) if task == "multiclass" else rows.Y
        labels = np.zeros(truth.shape, bool) if one_class else None
        return lambda AL: evaluate(names, task, truth, AL, weights, labels)
    units = rows.units or (lambda values: values)
    values = loss.point(units(rows.Y))
    return lambda AL: evaluate(names, task, values, loss.point(units(AL)), weights)
