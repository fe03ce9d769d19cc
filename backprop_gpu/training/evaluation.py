"""The scores after an epoch. Between two blocks of rows a callback may end the fit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loop import FitState

Evaluate = Callable[["Sequence[FitState]"], Sequence[dict[str, float]]]
"""Scores of each network on its validation set, ``cost`` (without penalty) among them; none for a fit without one."""


class _Stop(Exception):
    """A callback wants the fit to end."""


def scores_of(
    fits: Sequence[FitState], evaluate: Evaluate | None
) -> Sequence[tuple[dict[str, float], dict[str, float]]]:
    """The scores of each on validation and training rows, of the averaged weights where those are what is kept.

    A callback that wants the fit to end is called after the block of rows that is being evaluated.
    """
    if evaluate is None and not any(fit.training_scores for fit in fits):
        return [({}, {}) for _ in fits]

    def look() -> None:
        if any(callback.stops for fit in fits for callback in fit.callbacks):
            raise _Stop

    while True:
        try:
            with contextlib.ExitStack() as within:
                for fit in fits:
                    within.enter_context(_calling_between_blocks(fit, look))
                    if fit.step.optimizer.average:
                        within.enter_context(fit.step.averaged())
                validation = evaluate(fits) if evaluate else [{} for _ in fits]
                training = [fit.training_scores() if fit.training_scores else {} for fit in fits]
                return list(zip(validation, training, strict=True))
        except _Stop:
            pass  # with the weights of the last step, whose state callbacks may take
        for fit in fits:
            fit.call_before_evaluation()


@contextlib.contextmanager
def _calling_between_blocks(fit: FitState, look: Callable[[], None]) -> Iterator[None]:
    net = fit.step.net
    net.between_blocks = look
    try:
        yield
    finally:
        net.between_blocks = None
