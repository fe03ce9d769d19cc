"""Signals to a run: SIGINT and SIGTERM end it between two steps, SIGUSR1 asks it for a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from ..backends.collective import SINGLE, Collective
from ..errors import Stopped
from .callbacks import Callback, Epoch
from .checkpoint import Checkpoint

USR1: int | None = getattr(signal, "SIGUSR1", None)  # Windows has none


class Signals(Callback):
    """Answers signals while a fit runs; to be listed after its :class:`Checkpoint`, if it has one.

    SIGINT or SIGTERM: the step, or the block of validation rows, is finished, a checkpoint is written, and
    :class:`~backprop_gpu.errors.Stopped` ends the fit; while the first NaN is looked for, the checkpoints before it are
    those that stay. A second one ends the process at once. SIGUSR1: a checkpoint is
    written and training goes on. A signal that the process ignores (as jobs in the background do SIGINT) stays ignored.
    Outside of the main thread, where Python has no signals, this does nothing.
    """

    def __init__(self) -> None:
        self._given: int | None = None  # to this process
        self._stop: int | None = None  # that the fit is to end by
        self._asked = False
        self._before: dict[int, Any] = {}

    @property
    def stops(self) -> bool:  # type: ignore[override]
        """Whether the fit is to end."""
        return self._stop is not None or (self._given is not None and self._ranks.size == 1)

    @property
    def _ranks(self) -> Collective:
        fit = self.trainer and self.trainer.current
        return fit.step.ranks if fit else SINGLE

    def on_start(self, epochs: int) -> None:
        """Take the signals over."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._end)
        if USR1 is not None:
            self._before[USR1] = signal.signal(USR1, self._ask)

    def on_steps(self, step: int) -> None:
        """Do what was asked for."""
        fit = self.trainer and self.trainer.current  # of a trainer, or of an estimator
        self._settle()
        if self._stop is None and not self._asked:
            return
        self._asked = False
        for checkpoint in (c for c in fit.callbacks if isinstance(c, Checkpoint)) if fit else ():
            checkpoint.save()
            if self._stop is not None:
                checkpoint.wait()
        if self._stop is not None:
            raise Stopped(self._stop)

    def on_search(self) -> None:
        """End the fit without a checkpoint: the steps that are run again may be of an epoch that has ended."""
        self._settle()
        if self._stop is not None:
            raise Stopped(self._stop)

    def _settle(self) -> None:
        """Whether the fit is to end: several ranks end after the same step, which the next reduction settles."""
        ranks = self._ranks
        if ranks.size > 1:
            ranks.stop, self._stop = self._given or 0, ranks.stopped or None
        else:
            self._stop = self._given

    def on_epoch(self, epoch: Epoch) -> None:
        """Do what was asked for."""
        self.on_steps(epoch.step)

    def on_end(self) -> None:
        """Give the signals back, unless the process is to end: then a second one ends it at once."""
        if self._given is None:
            self.restore()

    def restore(self) -> None:
        """Give the signals back."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._given is not None:
            os._exit(128 + number)
        self._given = number

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
