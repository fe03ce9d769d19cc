"""What a run leaves beside its weights: the epochs, and why it ended."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._notebook import html_table
from ..errors import CheckpointError
from ..network.state import State, take, take_tensor
from .callbacks import Epoch
from .history_plot import HistoryDisplay

SHOWN = 10  # epochs at either end of a history in a notebook


@dataclass
class History:
    """The epochs of a run.

    Attributes
    ----------
    epochs : list of Epoch
    best_epoch : int
        The epoch whose weights the network holds now: the best on the validation set, or the last.
    stopped : str
        Why it ended: ``"epochs"``, ``"early stopping"``, ``"interrupted"`` or ``"diverged"``.
    notes : list of str
        What a user should know, such as a batch size larger than the data.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "epochs"
    notes: list[str] = field(default_factory=list)
    _columns: _Columns = field(default_factory=lambda: _Columns(), init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        last = f", cost={self.epochs[-1].cost:.6g}" if self.epochs else ""
        scores = self.epochs[-1].validation if self.epochs else {}
        validation = "".join(f", validation {name}={value:.6g}" for name, value in scores.items())
        return (
            f"<History: {len(self.epochs)} epochs, best {self.best_epoch}, stopped by {self.stopped}{last}{validation}>"
        )

    def _repr_html_(self) -> str:
        """The first epochs and the last ones."""
        names = list(self.epochs[-1].validation) if self.epochs else []
        rows: list[list[Any]] = [
            [e.epoch, e.step, e.cost, e.learning_rate, *(e.validation.get(name) for name in names)] for e in self.epochs
        ]
        if len(rows) > 2 * SHOWN:
            rows[SHOWN:-SHOWN] = [["..."] * (4 + len(names))]
        header = ("epoch", "step", "cost", "learning rate", *(f"validation {name}" for name in names))
        return html_table(repr(self).strip("<>"), header, rows)

    def plot(self, *, ax: Any = None) -> HistoryDisplay:
        """Plot the learning curves with matplotlib; ``ax``: see :meth:`HistoryDisplay.plot`."""
        return HistoryDisplay.from_history(self, ax=ax)

    def state_dict(self) -> State:
        """The epochs and the notes; why a run ended is known when it has.

        ``epochs`` is a list of runs of epochs, one if all of them have the same scores, each a mapping of arrays that
        hold one number for each epoch: ``step`` int64; ``cost``, ``learning_rate``, ``seconds`` and, by name, the
        scores of ``validation``, ``training`` and ``layers`` float64.
        """
        runs = self._columns.update(self.epochs)
        return {"epochs": runs, "notes": list(self.notes)}

    def load_state_dict(self, state: State) -> None:
        """Go on from what :meth:`state_dict` gave, in the same lists; notes that are here already come last.

        Raises
        ------
        CheckpointError
            Names what is missing in the state, or is not what it should be.
        """
        epochs: list[Epoch] = []
        for k, run in enumerate(take(state, "history.epochs", list)):
            epochs += _epochs_of(run, f"history.epochs[{k}]", len(epochs))
        notes = take(state, "history.notes", list)
        if not all(isinstance(note, str) for note in notes):
            raise CheckpointError("history.notes of the state must be texts")
        self.epochs[:], self.notes[:] = epochs, list(dict.fromkeys([*notes, *self.notes]))


_NUMBERS = {"step": "int64", "cost": "float64", "learning_rate": "float64", "seconds": "float64"}
_SCORES = ("validation", "training", "layers")


class _Columns:
    """Epochs as arrays, of which only those that are new are read: a state may be taken after each of a million."""

    def __init__(self) -> None:
        self._runs: list[State] = []
        self._count = 0

    def update(self, epochs: Sequence[Epoch]) -> list[State]:
        """The arrays of all ``epochs``, which must begin with those of the call before."""
        for names, new in itertools.groupby(epochs[self._count :], _names):
            run = _columns_of(list(new))
            if self._runs and tuple(tuple(self._runs[-1][key]) for key in _SCORES) == names:
                run = _joined(self._runs.pop(), run)
            self._runs.append(run)
        self._count = len(epochs)
        return [dict(run) for run in self._runs]


def _names(epoch: Epoch) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(getattr(epoch, key)) for key in _SCORES)


def _columns_of(epochs: Sequence[Epoch]) -> State:
    columns: State = {name: np.array([getattr(e, name) for e in epochs], kind) for name, kind in _NUMBERS.items()}
    for key in _SCORES:
        scores: list[dict[str, float]] = [getattr(epoch, key) for epoch in epochs]
        columns[key] = {name: np.array([each[name] for each in scores], "float64") for name in scores[0]}
    return columns


def _joined(first: State, then: State) -> State:
    """The arrays of both, one after the other."""
    return {
        key: _joined(value, then[key]) if isinstance(value, dict) else np.concatenate((value, then[key]))
        for key, value in first.items()
    }


def _epochs_of(run: Any, where: str, before: int) -> list[Epoch]:
    """The epochs that :func:`_columns_of` made the arrays of; ``before``: how many there are ahead of them."""
    shape = take(run, f"{where}.step", np.ndarray).shape
    if len(shape) != 1:
        raise CheckpointError(f"{where}.step of the state must be a list of numbers, got shape {shape}")
    columns = [take_tensor(run, f"{where}.{name}", shape, kind).tolist() for name, kind in _NUMBERS.items()]
    for key in _SCORES:
        scores = take({"layers": {}} | run, f"{where}.{key}", dict)  # without in states of earlier versions
        named = [take_tensor(scores, f"{where}.{key}.{name}", shape, "float64").tolist() for name in scores]
        rows = zip(*named, strict=True) if named else itertools.repeat(())
        columns.append([dict(zip(scores, row, strict=True)) for row, _ in zip(rows, columns[0], strict=False)])
    numbered = enumerate(zip(*columns, strict=True), start=before + 1)
    return [
        Epoch(number, step, cost, rate, validation, seconds, training, layers)
        for number, (step, cost, rate, seconds, validation, training, layers) in numbered
    ]
