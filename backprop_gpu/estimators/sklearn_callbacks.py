"""scikit-learn's callbacks (``sklearn.callback``): one task for the fit, one for each epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ..training.callbacks import Callback, Epoch
from .fitted_network import runtime_of


def tell(estimator: Any, callbacks: Sequence[Callback], epoch: Epoch) -> None:
    """Tell callbacks of an epoch; the user's, and threads that they wait for, may use the estimator."""
    for callback in callbacks:
        ours = type(callback).__module__.startswith(f"{__package__}.")
        with contextlib.nullcontext() if ours else runtime_of(estimator).turns.released():
            callback.on_epoch(epoch)


class Listeners:
    """The callbacks that were set on an estimator, or propagated to it; nothing is done where there are none."""

    def __init__(self, estimator: Any, X: Any, y: Any, weights: Any, max_subtasks: int) -> None:
        self.turns = runtime_of(estimator).turns
        self.root: Any = None
        self.context: Any = None
        if not getattr(estimator, "_skl_callbacks", None):
            return
        metadata = None if weights is None else {"sample_weight": weights}
        self.given = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self.attributes: Callable[[], dict[str, Any]] = dict
        self.root = estimator._init_callback_context(max_subtasks=max_subtasks)
        self.root.call_on_fit_task_begin(**self.given)

    def begin(self) -> None:
        """An epoch begins."""
        if self.root is not None:
            self.context = self.root.subcontext(task_name="epoch")
            with self.turns.released():
                self.context.call_on_fit_task_begin(**self.given)

    def end(self) -> bool:
        """An epoch has ended; True if a callback asks to stop."""
        if self.context is None:
            return False
        with self.turns.released():
            return bool(
                self.context.call_on_fit_task_end(**self.given, reconstruction_attributes=lambda: self.attributes())
            )

    def finish(self) -> None:
        """The fit has ended."""
        if self.root is not None:
            with self.turns.released():
                self.root.call_on_fit_task_end(**self.given, reconstruction_attributes=lambda: self.attributes())
