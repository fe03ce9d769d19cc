"""Progress of a fit to rows in files: how many a second, and whether training waits for rows or rows for training."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from .callbacks import Epoch, Progress
from .source_batches import SourceBatches, is_source

if TYPE_CHECKING:
    from .trainer import Trainer

_FEW = 0.05  # of the time: training hardly waits


class RowProgress(Progress):
    """Writes a line, or moves the bar's numbers, within an epoch too, since one may take hours."""

    _step, _time, _waited = 0, 0.0, 0.0
    _speed = ""

    def on_start(self, epochs: int) -> None:
        """Show the bar, and begin to count."""
        super().on_start(epochs)
        trainer, batches = self._fit()
        self._step, self._time, self._waited = trainer.step.t, time.monotonic(), batches.prefetch.waited

    def on_steps(self, step: int) -> None:
        """Say how it goes, if it is time to."""
        if time.monotonic() - self._time < self.interval:
            return
        _, batches = self._fit()
        self._measure(step)
        self._show(
            f"epoch {batches.epoch + 1}/{self._epochs}", f"batch {batches.batch:,}/{len(batches):,}  {self._speed}"
        )

    def on_epoch(self, epoch: Epoch) -> None:
        """As :class:`Progress` does, with the speed."""
        self._measure(epoch.step)
        super().on_epoch(epoch)

    def status(self, epoch: Epoch) -> str:
        """The scores, and the speed since it was said last."""
        return f"{super().status(epoch)}  {self._speed}"

    def _measure(self, step: int) -> None:
        """What there is to say of the steps since the last time."""
        _, batches = self._fit()
        now, waited = time.monotonic(), batches.prefetch.waited
        seconds = max(now - self._time, 1e-9)
        rows, share = (step - self._step) * batches.batch_size / seconds, (waited - self._waited) / seconds
        which = f"training waits for rows {share:.0%} of the time" if share > _FEW else "rows wait for training"
        self._speed = f"{rows:,.0f} rows/s, {which}"
        self._step, self._time, self._waited = step, now, waited

    def _show(self, where: str, what: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, status=what)
        elif sys.stderr is not None:
            sys.stderr.write(f"{where}  {what}\n")
            sys.stderr.flush()

    def _fit(self) -> tuple[Trainer, SourceBatches]:
        assert self.trainer is not None, "the trainer sets it"
        assert self.trainer.current is not None, "there is a fit while callbacks are called"
        batches: Any = self.trainer.current.batches
        return self.trainer, batches


def with_rows(callbacks: list[Any], rows: Any) -> list[Any]:
    """The callbacks; of a fit to rows in files with this progress in place of the usual one."""
    if not is_source(rows):
        return callbacks
    return [RowProgress(c.interval) if type(c) is Progress else c for c in callbacks]
