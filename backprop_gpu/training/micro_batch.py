"""The automatic micro-batch: halved where memory runs out before anything has been learnt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DeviceError
from ..network.plan import amount
from ..network.step import TrainingStep
from .batches import Batches


@dataclass(frozen=True)
class SettingNames:
    """What errors and notes call the settings that help.

    Attributes
    ----------
    micro_batch : str
        That which bounds the examples of a pass.
    hidden : str
        The sizes of hidden layers.
    to_host : str
        The setting, with its value, that keeps the data set off the device; empty if there is none.
    """

    micro_batch: str
    hidden: str
    to_host: str


CONFIGURATION = SettingNames("training.micro_batch", "model.hidden", "training.data_on: host")


class AutoMicroBatch:
    """Examples of a forward and backward pass: as many as were asked for, and fewer where they do not fit.

    The gradient does not depend on the micro-batch, unless a layer is normalized: then each part has statistics of its
    own, and at least two examples. Once a step has moved the parameters, or if the fewest examples at a time are still
    too many, there is nothing to halve.

    Attributes
    ----------
    size : int
        Examples at a time.
    """

    def __init__(self, step: TrainingStep, batches: Batches, asked: int | None, names: SettingNames) -> None:
        self.step, self.batches, self.names = step, batches, names
        self.size = self._asked = min(asked or batches.batch_size, batches.batch_size)
        self._least = 2 if any(step.net.batch_norm) else 1

    def take_at_most(self, size: int) -> None:
        """Begin with so many examples at a time, to which an earlier fit of these batches had come down."""
        self.size = self._asked = max(min(size, self.size), self._least)

    def halve(self, moved: bool) -> None:
        """Free what depends on the number of examples, and halve it; ``moved``: a step has moved the parameters.

        Raises
        ------
        DeviceError
            If a smaller micro-batch cannot help.
        """
        step, backend, names = self.step, self.step.net.backend, self.names
        step.release()
        backend.free()
        if moved:
            raise DeviceError(f"out of memory on {backend.name} in the middle of training; lower {names.micro_batch}")
        if self.size <= self._least:
            both = 2 * step.net.params.theta.shape[0] * np.dtype(step.net.dtype).itemsize
            model = amount(both + step.optimizer_bytes)
            few = "one example" if self._least == 1 else "two examples, which batch normalization needs,"
            fix = f", or set {names.to_host}" if names.to_host and self.batches.on == "device" else ""
            raise DeviceError(
                f"out of memory on {backend.name} even with {few} at a time: parameters, gradients and optimizer state "
                f"take {model}; make {names.hidden} narrower{fix}"
            )
        self.size = max((self.size + 1) // 2, self._least)

    def notes(self) -> list[str]:
        """What a user should know of it, if anything: asked for once an epoch has run."""
        asked, self._asked = self._asked, self.size
        if self.size == asked:
            return []
        what = "which gives the same gradient"
        if self._least > 1:
            what = "and batch normalization the statistics of so many, not of the batch"
        return [
            f"memory ran out with {asked} examples at a time: each step takes {self.size} at a time, "
            f"{what} ({self.names.micro_batch}: {self.size})"
        ]
