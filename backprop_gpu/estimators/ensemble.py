"""Several estimators of one network each, fitted at once: a step of the ensemble is one recorded program.

Each network keeps its own start, order of rows and dropout, so that it gets the bits that it gets alone. The rows lie
on the device once; who trains on which of them is an order of their numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..maths.losses import Loss
from ..network.dense_net import DenseNet
from ..training.batches import Batches
from ..training.epoch import EpochProgram, JointEpoch
from ..training.validation import HeldOut, Judgement
from .fit import Played, StochasticFit, advance
from .fitted_network import SolverState, plan_for
from .rows import Rows
from .sampler import batches_over
from .sklearn_callbacks import Listeners


@dataclass(eq=False)
class Entrant:
    """An estimator that has its initial weights, and what it is fitted to.

    Attributes
    ----------
    member : MLPClassifier or MLPRegressor
    sizes : tuple of int
        Units per layer.
    inside : (k,) int or None
        The rows that it trains on; None for all.
    held_out : HeldOut or None
    together : bool
        Whether it may advance with others: not if callbacks follow it, which see one run from its start to its end.
    """

    member: Any
    sizes: tuple[int, ...]
    inside: np.ndarray | None
    held_out: HeldOut | None
    together: bool

    def n(self, rows: Rows) -> int:
        """How many rows it trains on."""
        return len(rows.Y) if self.inside is None else len(self.inside)


class OneProgram:
    """Epochs of several fits; the program is recorded anew when one of them has ended."""

    def __init__(self, laps: dict[StochasticFit, EpochProgram]) -> None:
        self._laps = laps
        self._fits: Sequence[StochasticFit] = ()

    def __call__(self, fits: Sequence[StochasticFit], epoch: int) -> list[Played]:
        """Train an epoch (from 0) of each fit, and judge; J of each batch and what was found, for each."""
        if self._fits != fits:
            self._fits, self._pass = fits, JointEpoch([self._laps[fit] for fit in fits])
            validations = [fit.validation for fit in fits if fit.validation is not None]
            self._judgement = Judgement(validations) if validations else None
        costs = self._pass.train(epoch)
        if self._judgement is None:
            return [(J, {}) for J in costs]
        with contextlib.ExitStack() as stack:
            for fit in fits:
                stack.enter_context(fit.engine.step.averaged())
            return list(zip(costs, self._judgement.run(), strict=True))


def fit_together(entrants: Sequence[Entrant], rows: Rows, loss: Loss) -> list[Entrant]:
    """Fit estimators of equal parameters; those with equally many rows advance in one program.

    Returns those that were fitted: Ctrl-C ends the ones that have begun with what they have, and leaves out the others.
    """
    fitted: list[Entrant] = []
    groups: dict[int, list[tuple[str, Entrant]]] = {}
    for number, entrant in enumerate(entrants, start=1):
        key = entrant.n(rows) if entrant.together else -number
        groups.setdefault(key, []).append((f"net {number}: ", entrant))
    for group in groups.values():
        fitted += [entrant for _, entrant in group]
        if not _fit_group(group, rows, loss):
            break
    return [entrant for entrant in entrants if entrant in fitted]


def _fit_group(group: Sequence[tuple[str, Entrant]], rows: Rows, loss: Loss) -> bool:
    """Fit in one program; False if interrupted."""
    laps: dict[StochasticFit, EpochProgram] = {}
    net: DenseNet | None = None
    batches: Batches | None = None
    with contextlib.ExitStack() as stack:
        for title, entrant in group:
            member = entrant.member
            plan = plan_for(member, entrant.sizes, loss, str(member.coefs_[0].dtype), entrant.n(rows))
            member._optimizer = SolverState(plan.optimizer.learning_rate)
            listeners = Listeners(member, None, None, None, 0)
            watched = "" if entrant.held_out is None else "Validation loss did not improve"
            how = {"incremental": False, "title": title, "watched": watched}
            fit = member._open(plan, entrant.held_out, listeners, beside=net, **how)
            stack.callback(member._close, fit)
            net = fit.engine.net
            batches = batches_over(
                fit.engine.net,
                *(rows.X, rows.Y, rows.weights),
                batch_size=plan.batch_size,
                shuffle=member.shuffle,
                chosen=entrant.inside,
                share_with=batches,
                copy=False,
            )
            laps[fit] = EpochProgram(fit.engine.step, batches, None)
            fit.begin(batches)
        return advance(list(laps), OneProgram(laps))
