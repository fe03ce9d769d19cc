"""What a run leaves beside its weights: the epochs, and why it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .._notebook import html_table
from ..errors import CheckpointError
from ..network.state import State, plain, take
from .callbacks import Epoch

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

    def __repr__(self) -> str:
        last = f", cost={self.epochs[-1].cost:.6g}" if self.epochs else ""
        judged = self.epochs[-1].validation if self.epochs else {}
        validation = "".join(f", validation {name}={value:.6g}" for name, value in judged.items())
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

    def state_dict(self) -> State:
        """The epochs and the notes as plain values; why a run ended is known when it has."""
        return {"epochs": [plain(asdict(epoch)) for epoch in self.epochs], "notes": list(self.notes)}

    def load_state_dict(self, state: State) -> None:
        """Go on from what :meth:`state_dict` gave, in the same lists; notes that are here already come last.

        Raises
        ------
        CheckpointError
            Names what is missing in the state, or is not what it should be.
        """
        kinds = {"epoch": int, "step": int, "cost": float, "learning_rate": float, "seconds": float}
        epochs = []
        for k, given in enumerate(take(state, "history.epochs", list)):
            where = f"history.epochs[{k}]"
            known = {f.name: take(given, f"{where}.{f.name}", kinds.get(f.name, dict)) for f in fields(Epoch)}
            for scores in (known["validation"], known["training"]):
                for name in scores:
                    take(scores, f"{where}.{name}", float)
            epochs.append(Epoch(**known | {key: dict(known[key]) for key in ("validation", "training")}))
        if [epoch.epoch for epoch in epochs] != list(range(1, len(epochs) + 1)):
            raise CheckpointError("history.epochs of the state are not the epochs 1, 2, 3, ...")
        notes = take(state, "history.notes", list)
        if not all(isinstance(note, str) for note in notes):
            raise CheckpointError("history.notes of the state must be texts")
        self.epochs[:], self.notes[:] = epochs, list(dict.fromkeys([*notes, *self.notes]))
