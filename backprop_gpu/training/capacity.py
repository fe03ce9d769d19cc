"""What fits: where the data set lives, and passes whose micro-batch is halved where memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError
from ..network.plan import amount
from ..network.step import TrainingStep
from .batches import Batches, StreamedBatches
from .passes import NO_PAUSES, Pass, Pauses

DATA_ON = ("auto", "device", "host")
LOOKED_AT = 32  # rows whose outputs show that the weights of the last step are of use
SHARE = 0.5  # of the memory that is available, which `auto` gives to the data set


def place_data(
    step: TrainingStep,
    rows: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    data_on: str,
    notes: list[str],
    **settings: Any,
) -> Batches:
    """Batches of a data set on the device, or on the host if it is told so or, for ``auto``, if it does not fit.

    Raises
    ------
    DeviceError
        If it has to be on the device and does not fit.
    """
    net, backend = step.net, step.net.backend
    itemsize = np.dtype(net.dtype).itemsize
    needed = sum(x.size * (8 if x.dtype == np.int64 else itemsize) for x in rows if x is not None) + 8 * len(rows[0])
    if on_device(data_on, needed, backend.available()):
        try:
            return Batches(net, *rows, **settings)
        except MemoryError:
            if data_on == "device":
                raise DeviceError(
                    f"the data set ({amount(needed)}) does not fit on {backend.name}; set training.data_on: host"
                ) from None
        backend.free()
    if data_on == "auto":
        notes.append(f"the data set ({amount(needed)}) stays on the host; each batch is copied to {backend.name}")
    return StreamedBatches(net, *rows, **settings)


def on_device(data_on: str, needed: int, available: int | None) -> bool:
    """Whether a data set of ``needed`` bytes is to be uploaded."""
    return data_on == "device" or (data_on == "auto" and (available is None or needed <= SHARE * available))


class RoomyPass:
    """A pass over the data that halves its micro-batch where memory runs out before anything has been learnt.

    The gradient does not depend on the micro-batch, unless a layer is normalized: then each part has statistics of its
    own, and at least two examples. Once a step has moved the parameters, or if the fewest examples at a time are still
    too many, there is nothing to halve.
    """

    def __init__(self, step: TrainingStep, batches: Batches, micro_batch: int | None, notes: list[str]) -> None:
        self.step, self.batches, self.notes = step, batches, notes
        self.micro_batch = self._asked = min(micro_batch or batches.batch_size, batches.batch_size)
        self._least = 2 if any(step.net.batch_norm) else 1
        self._pass: Pass | None = None

    def run(self, epoch: int, costs: Sequence[float] | np.ndarray = (), pauses: Pauses = NO_PAUSES) -> np.ndarray:
        """See ``Pass.run``.

        Raises
        ------
        DeviceError
            If memory runs out and a smaller micro-batch cannot help.
        """
        first = self._pass is None
        found = self._tried(epoch, costs, pauses)
        while found is None:
            self._halve(first, len(costs))
            found = self._tried(epoch, costs, pauses)
        if first and self.micro_batch < self._asked:
            what = "which gives the same gradient"
            if self._least > 1:
                what = "and batch normalization the statistics of so many, not of the batch"
            self.notes.append(
                f"memory ran out with {self._asked} examples at a time: each step takes {self.micro_batch} at a time, "
                f"{what} (training.micro_batch: {self.micro_batch})"
            )
        return found

    def take_at_most(self, micro_batch: int) -> None:
        """Begin with so many examples at a time, which an earlier pass over these batches had come down to."""
        self.micro_batch = self._asked = max(min(micro_batch, self.micro_batch), self._least)

    def costs(self, batches: int) -> np.ndarray:
        """J of the first batches of the epoch that is under way."""
        return np.zeros(0, self.step.net.dtype) if self._pass is None else self._pass.costs(batches)

    def close(self) -> None:
        """Let go of the buffers: there is no further epoch."""
        self._pass = None
        self.step.release(scratch=False)

    def outputs_are_finite(self) -> bool:
        """Whether the network's weights, which may be finite and yet useless, give numbers for the first rows."""
        X: Any = self.batches.rows[0]
        with np.errstate(all="ignore"):
            outputs = self.step.net.predict_proba(np.asarray(X[: min(LOOKED_AT, self.micro_batch)]))
        return bool(np.isfinite(outputs).all())

    def _tried(self, epoch: int, costs: Sequence[float] | np.ndarray, pauses: Pauses) -> np.ndarray | None:
        """The epoch's costs; None if memory ran out. What the error's frames hold is let go on return."""
        try:
            if self._pass is None:
                self.step.rewind(len(costs))
                self._pass = Pass(self.step, self.batches, self.micro_batch)
            return self._pass.run(epoch, costs, pauses)
        except MemoryError:
            return None

    def _halve(self, first: bool, taken: int) -> None:
        step, backend = self.step, self.step.net.backend
        name, moved = backend.name, not first or step.batches_begun > taken + 1
        self._pass = None
        step.release()
        backend.free()
        if moved:
            raise DeviceError(f"out of memory on {name} in the middle of training; lower training.micro_batch")
        if self.micro_batch <= self._least:
            both = 2 * step.net.params.theta.shape[0] * np.dtype(step.net.dtype).itemsize
            model = amount(both + step.optimizer_bytes)
            few = "one example" if self._least == 1 else "two examples, which batch normalization needs,"
            cure = "" if self.batches.on == "host" else ", or set training.data_on: host"
            raise DeviceError(
                f"out of memory on {name} even with {few} at a time: parameters, gradients and optimizer slots "
                f"take {model}; make model.hidden narrower{cure}"
            )
        self.micro_batch = max((self.micro_batch + 1) // 2, self._least)
