"""scikit-learn's callbacks (``sklearn.callback``): one task for the fit, one for each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Listeners:
    """The callbacks that were set on an estimator, or propagated to it; nothing is done where there are none."""

    def __init__(self, estimator: Any, X: Any, y: Any, weights: Any, max_subtasks: int) -> None:
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
            self.context.call_on_fit_task_begin(**self.given)

    def end(self) -> bool:
        """An epoch has ended; True if a callback asks to stop."""
        if self.context is None:
            return False
        return bool(
            self.context.call_on_fit_task_end(**self.given, reconstruction_attributes=lambda: self.attributes())
        )

    def finish(self) -> None:
        """The fit has ended."""
        if self.root is not None:
            self.root.call_on_fit_task_end(**self.given, reconstruction_attributes=lambda: self.attributes())
