"""What happens inside the layers while a network is trained: norms and dead units, on a sample of training rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._typing import Array
from ..backends.locks import locked
from ..network import layer_loop
from ..network.dense_net import DenseNet
from ..network.memory import Snapshot
from ..network.row_source import RowSource
from ..network.targets import check_rows, check_targets
from .callbacks import Callback, Epoch

if TYPE_CHECKING:
    from .loop import FitState

FEWEST, MOST = 32, 256  # rows of the sample, if there are so many
SHARE = 100  # rows that are trained on for each that is looked at


class LayerStatistics(Callback):
    """Adds to ``Epoch.layers``, for each layer l, what a forward and a backward pass over a sample of rows gives.

    ``gradient l`` is the norm of dJ/dW[l] (J without penalty, no dropout), ``weights l`` that of W[l], ``activation l``
    the root mean square of A[l], and ``dead l``, of hidden layers, the share of units whose output is the same for all
    rows of the sample: such a unit tells the next layer nothing, and a relu that is 0 everywhere learns nothing. Of an
    ensemble, A is its last member's.

    The sample is every (n/k)-th row, k = n/100 but at least 32 and at most 256. It is looked at after the first epoch,
    the last, and each time that 100 times as many rows have been trained on, so that it takes about 1% of the work.
    The fit has the same bits with it and without it.

    Parameters
    ----------
    X : (n_samples, n_0)
    y : (n_samples,) or (n_samples, n_L)
    """

    def __init__(self, X: Any, y: Any) -> None:
        self.n = len(X)
        k = min(self.n, max(FEWEST, min(self.n // SHARE, MOST)))
        rows = np.linspace(0, self.n - 1, k).astype(np.int64)
        self.X, self.y = (x[rows] if isinstance(x, RowSource) else np.asarray(x)[rows] for x in (X, y))
        self.epochs_between = math.ceil(SHARE * k / self.n)
        self._last = 0
        self._pass: _SamplePass | None = None

    def on_start(self, epochs: int) -> None:
        """Place the sample on the network's device."""
        self._last, self._pass = 0, _SamplePass(self._fit.step.net, self.X, self.y)

    def on_resume(self, epochs: Any) -> None:
        """Go on counting from the epoch that was looked at last."""
        self._last = max((epoch.epoch for epoch in epochs if epoch.layers), default=0)

    def on_epoch(self, epoch: Epoch) -> None:
        """Look at the layers, if it is time to."""
        if not self._last or epoch.epoch - self._last >= self.epochs_between or self._fit.over:
            self._last = epoch.epoch
            assert self._pass is not None, "on_start makes it"
            epoch.layers = self._pass.statistics()

    @property
    def _fit(self) -> FitState:
        assert self.trainer is not None, "the trainer sets it"
        assert self.trainer.current is not None, "there is a fit while callbacks are called"
        return self.trainer.current

    def on_end(self) -> None:
        """Free the buffers."""
        self._pass = None


class _SamplePass:
    """A forward and backward pass over a few rows, without dropout, that leaves the network as it was."""

    def __init__(self, net: DenseNet, X: np.ndarray, y: np.ndarray) -> None:
        self.net, self.lock = net, net.lock
        X = check_rows(X, net.sizes[0], dtype=net.dtype)
        Y = check_targets(y, net.loss, net.sizes[-1], len(X))
        with net.backend.activate():
            self.Y, self.X = net.upload_columns(Y), net.upload_columns(X)
            self.inverse = net.backend.asarray([1.0 / (len(X) * net.members)], net.dtype)
            self.value = net.backend.zeros((1,), net.dtype)
            # Normalization's running statistics, which a pass with its examples' own moves.
            moved = [*net.mean.values(), *net.variance.values()]
            self.running = Snapshot(net.backend, moved, net.dtype)
            self.ws = net.workspace(len(X), dropout=False)
            self.ws.A[0] = self.X
            self._replay = net.kernels.capture(self._both_ways)

    def _both_ways(self) -> None:
        how: dict[str, Any] = {"form": "fused", "one_over_m": "early", "accumulate": False}
        layer_loop.gradient(self.net, self.ws, self.Y, **how, inverse=self.inverse, value=self.value)

    @locked
    def statistics(self) -> dict[str, float]:
        """See :class:`LayerStatistics`; the gradient buffers, which a step fills anew, hold the sample's gradient."""
        net = self.net
        with net.backend.activate(), np.errstate(all="ignore"):
            self.running.take()
            self._replay(1)
            self.running.restore()
            sums = self._sums()
            host = net.backend.to_host(net.backend.xp.stack([total for _, total, _ in sums])).astype(float).tolist()
        scaled = {name: total / n for (name, _, n), total in zip(sums, host, strict=True)}
        return {name: x if name.startswith("dead") else math.sqrt(x) for name, x in scaled.items()}

    def _sums(self) -> list[tuple[str, Array, int]]:
        """Name; sum of squares, or number of dead units, on the device; what to divide it by before the root."""
        net, ws, xp = self.net, self.ws, self.net.backend.xp
        found: list[tuple[str, Array, int]] = []
        for l in range(1, net.L + 1):
            A: Array = ws.A[l]
            W: Array = net.params.W[l]
            dW: Array = net.params.dW[l]
            if l == net.L:
                A = net.loss.link.forward(xp, A)
            found.append((f"gradient {l}", xp.sum(dW * dW), 1))
            found.append((f"weights {l}", xp.sum(W * W), 1))
            found.append((f"activation {l}", xp.sum(A * A), A.shape[0] * A.shape[1]))
            if l < net.L and ws.m > 1:
                same = xp.max(A, axis=1) == xp.min(A, axis=1)
                found.append((f"dead {l}", xp.sum(xp.astype(same, A.dtype)), A.shape[0]))
        return found
