"""Callbacks of a training run. Every method does nothing unless overridden."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..atomic_file import write_file
from ..errors import CheckpointError
from ..safe_files import json_memory, memory_limit, open_regular, parse_json
from .growing_file import GrowingFile

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from .trainer import Trainer


_LONGEST_LINE = 1 << 20  # bytes of a line of history.jsonl
_WIDE = 90  # columns of a terminal that have room for a bar beside the numbers


@dataclass
class Epoch:
    """What is known after one epoch.

    Attributes
    ----------
    epoch : int
        From 1.
    step : int
        Optimizer steps so far.
    cost : float
        J, penalty included, averaged over the epoch's batches while the parameters moved.
    learning_rate : float
        Of the next step.
    validation : dict
        ``cost`` (without penalty) and the metrics on the validation set; empty without one.
    seconds : float
        Since training began.
    training : dict
        The same as ``validation`` on training rows, which a run of the command line adds; else empty.
    layers : dict
        Norms by layer, which :class:`~backprop_gpu.training.layers.LayerStatistics` adds now and then; else empty.
    """

    epoch: int
    step: int
    cost: float
    learning_rate: float
    validation: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    training: dict[str, float] = field(default_factory=dict)
    layers: dict[str, float] = field(default_factory=dict)


class Callback:
    """Base: override what you need. In ``on_epoch`` and ``on_steps`` it may call ``Trainer.state_dict``.

    Attributes
    ----------
    every : int, default 0
        ``on_steps`` is called after each so many optimizer steps at the latest; 0 means any number of them.
    stops : bool, default False
        True while this wants to end the fit. It is asked between blocks of validation rows, too: the evaluation is then
        left and ``on_steps`` called, in which it raises; where it does not, the evaluation begins again.
    trainer : Trainer or None
        Whose fit it is, from before ``on_start`` until after ``on_end``.
    """

    every: int = 0
    stops: bool = False
    trainer: Trainer | None = None

    @property
    def resumed(self) -> bool:
        """Whether the fit is one that is taken up again after an epoch; known from ``on_start`` on."""
        return (
            self.trainer is not None and self.trainer.current is not None and bool(self.trainer.current.history.epochs)
        )

    def on_start(self, epochs: int) -> None:
        """Before the first epoch; ``epochs`` is the most there will be."""

    def on_resume(self, epochs: Sequence[Epoch]) -> None:
        """After ``on_start``, of a run that is taken up again: the epochs that it had finished."""

    def on_steps(self, step: int) -> None:
        """Between two steps within an epoch, ten times a second or more often; ``step`` optimizer steps so far."""

    def on_search(self) -> None:
        """Between two steps that are run again to find the first NaN: to end the fit by an error; no state is there."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After every epoch."""

    def on_end(self) -> None:
        """After the last epoch, also when training ends by an error or Ctrl-C."""


class JsonLines(Callback):
    """One JSON object per epoch, written as it ends, so that an interrupted run keeps what it had.

    A line that cannot be written is kept, with one warning, and written with the next: a full disk ends no training.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: GrowingFile | None = None

    def on_start(self, epochs: int) -> None:
        """Open the file: anew, unless the run is one that is taken up again."""
        self._file = GrowingFile(self.path, anew=not self.resumed)

    def on_resume(self, epochs: Sequence[Epoch]) -> None:
        """Keep their lines, and drop those of epochs that were lost; write them again where some are missing."""
        assert self._file is not None, "on_start opens the file"
        try:
            lines = self._file.content().splitlines(keepends=True)[: len(epochs)]
            last = _history_line(lines[-1], str(self.path))[0] if lines and lines[-1].endswith(b"\n") else None
            if len(lines) == len(epochs) and isinstance(last, dict) and last.get("step") == epochs[-1].step:
                self._file.keep(sum(map(len, lines)))
                return
        except ValueError:  # that was no history
            pass
        self._file.keep(0)
        self._file.write(b"".join((to_json(asdict(epoch)) + "\n").encode() for epoch in epochs))

    def on_epoch(self, epoch: Epoch) -> None:
        """Append a line."""
        assert self._file is not None, "on_start opens the file"
        self._file.write((to_json(asdict(epoch)) + "\n").encode())

    def on_end(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Progress(Callback):
    """A bar on standard error, with cost and validation; a line every few seconds where that is not a terminal.

    Parameters
    ----------
    interval : float, default 5.0
        Seconds between two lines.
    """

    def __init__(self, interval: float = 5.0) -> None:
        self.interval = interval
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._epochs, self._last = 0, math.inf  # until it is started, no time for a line

    def on_start(self, epochs: int) -> None:
        """Show the bar."""
        self._epochs, self._last = epochs, time.monotonic()
        if sys.stderr is None or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True)
        counted = [TextColumn("epoch"), MofNCompleteColumn()]
        numbers = TextColumn("{task.fields[status]}")
        wide = console.width >= _WIDE  # else the numbers, which matter more, would be cut
        columns = [*counted, BarColumn(), numbers, TimeRemainingColumn()] if wide else [*counted, numbers]
        self._bar = RichProgress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("train", total=epochs, status="")
        self._bar.start()

    def on_resume(self, epochs: Sequence[Epoch]) -> None:
        """Begin where the run had come to."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=len(epochs))

    def on_epoch(self, epoch: Epoch) -> None:
        """Move it on, or write a line if it is time for one."""
        status = self.status(epoch)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, status=status)
        elif sys.stderr is not None and time.monotonic() - self._last >= self.interval:
            self._last = time.monotonic()
            sys.stderr.write(f"epoch {epoch.epoch}/{self._epochs}  {status}  ({epoch.seconds:.0f} s)\n")
            sys.stderr.flush()

    def status(self, epoch: Epoch) -> str:
        """Cost and validation as text."""
        parts = {"cost": epoch.cost, **{f"val {k}": v for k, v in epoch.validation.items()}}
        return "  ".join(f"{k} {v:.4f}" for k, v in parts.items())

    def on_end(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.stop()


class StartedCallbacks:
    """Start callbacks on entry, end them on exit whatever happened."""

    def __init__(self, callbacks: Sequence[Callback], epochs: int) -> None:
        self.callbacks, self.epochs = callbacks, epochs
        self._started: list[Callback] = []

    def __enter__(self) -> Sequence[Callback]:
        try:
            for callback in self.callbacks:
                callback.on_start(self.epochs)
                self._started.append(callback)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self.callbacks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        first: BaseException | None = None
        for callback in reversed(self._started):
            try:
                callback.on_end()
            except BaseException as raised:  # the others end all the same
                first = first or raised
        if first is not None:
            raise first


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON as every reader knows it: NaN and infinities, which it does not have, become null."""

    def finite(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: finite(v) for k, v in x.items()}
        if isinstance(x, list | tuple):
            return [finite(v) for v in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    return json.dumps(finite(value), indent=indent, allow_nan=False)


def write_history(path: str | os.PathLike[str], epochs: Sequence[Epoch]) -> None:
    """The file that :class:`JsonLines` leaves after these epochs, in one piece."""
    write_file(path, "".join(to_json(asdict(epoch)) + "\n" for epoch in epochs))


def history_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read what :class:`JsonLines` wrote; a last line cut short by a crash is left out.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or a line before the last is not one of a history.
    """
    lines: list[dict[str, Any]] = []
    with open_regular(path, CheckpointError) as file:
        left = memory_limit(os.fstat(file.fileno()).st_size)
        while line := file.readline(_LONGEST_LINE + 1):
            try:
                epoch, memory = _history_line(line, f"{path}, line {len(lines) + 1}")
            except CheckpointError:
                if line.endswith(b"\n") or len(line) > _LONGEST_LINE:
                    raise
                break
            lines.append(epoch)
            left -= memory
            if left < 0:
                raise CheckpointError(f"{path} holds more values than a history of its size; check the path")
    return lines


def _history_line(line: bytes, where: str) -> tuple[dict[str, Any], int]:
    """A line's epoch, and an estimate of its memory."""
    if len(line) > _LONGEST_LINE:
        raise CheckpointError(f"{where} is longer than {_LONGEST_LINE} bytes, so this is no history; check the path")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{where} is not utf-8 text; take the line out, or copy the file again") from None
    found = parse_json(text, where, CheckpointError)
    if not isinstance(found, dict):
        raise CheckpointError(f"{where} is no epoch of a history but {type(found).__name__}; take the line out")
    return found, json_memory(text)
