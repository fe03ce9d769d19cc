"""Checkpoints as a fit goes: when they are written, by which thread, and which of them are kept."""

from __future__ import annotations

import errno
import functools
import math
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..atomic_file import remove_temporaries
from ..errors import CheckpointError, ConfigError
from ..maths.registry import is_number
from ..network.state import State
from .callbacks import Callback, Epoch
from .checkpoint_file import BEST_FILE, checkpoints_in, save_checkpoint
from .checkpoint_file import state_in as state_in
from .early_stopping import whole

if TYPE_CHECKING:
    from .loop import FitState

SECONDS = 60.0  # between two checkpoints, unless something else is asked for
_LOCK_FILE = ".lock"
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EMLINK)  # what opening a link, or a pipe, is answered with
_IN_USE = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # what a lock that another has is answered with


class Checkpoint(Callback):
    """Writes the state of a fit to a folder as it goes; ``Trainer.fit(X, y, resume=folder)`` goes on from there.

    A thread of its own writes while training goes on; only the copies of the state are made between two steps. A
    checkpoint that cannot be written (the disk is full, say) is told of, and training goes on; those before it stay.
    The last state of a fit is always written. What a fit has been given beside the data need not be repeated here: a
    state that does not fit is refused, naming the setting.

    Parameters
    ----------
    folder : path
        Made if it is not there. One fit at a time may write to it.
    every_steps, every_epochs : int, optional
        Write after so many optimizer steps, or epochs.
    every_seconds : float, optional
        Write after so many seconds, at the next step. Left out, 60 if neither steps nor epochs are given.
    keep : int, default 2
        How many of the newest checkpoints are kept; more than one, so that there is another if one is damaged.
    keep_best : bool, default False
        Keep ``best.safetensors`` too, the state after the epoch that was best on the validation set. It is written
        along with the next checkpoint.
    more : mapping, optional
        Plain values that are written along, such as the configuration; they are not read by ``fit``.
    say : callable, default warnings.warn
        Told in one line of a checkpoint that could not be written.

    Raises
    ------
    ConfigError
        For a setting out of its range; by ``fit``, for a folder that another fit writes to or has checkpoints in.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every_steps: int | None = None,
        every_epochs: int | None = None,
        every_seconds: float | None = None,
        keep: int = 2,
        keep_best: bool = False,
        more: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = warnings.warn,
    ) -> None:
        for name, number in (("every_steps", every_steps), ("every_epochs", every_epochs), ("keep", keep)):
            if not whole(number, 1) and not (number is None and name != "keep"):
                raise ConfigError(f"checkpoint: {name} must be a whole number from 1, got {number!r}")
        if every_seconds is None:
            every_seconds = SECONDS if every_steps is None and every_epochs is None else math.inf
        elif not is_number(every_seconds) or not every_seconds > 0.0:
            raise ConfigError(f"checkpoint: every_seconds must be above 0, got {every_seconds!r}")
        self.folder, self.keep, self.keep_best = Path(folder), int(keep), keep_best
        self.every, self.every_epochs, self.every_seconds = int(every_steps or 0), every_epochs, float(every_seconds)
        self.more, self.say = dict(more or {}), say
        self._lock: IO[bytes] | None = None
        self._claimed_here = False
        self._number, self._step, self._time, self._told = 1, 0, 0.0, False
        self._written: int | None = None  # the step of the last one
        self._writer: _Writer | None = None  # while a fit runs: before and after it, this can be copied and pickled
        self._writing = False
        self._problem: str | None = None
        self._best: State | None = None  # of the best epoch, to be written with the next checkpoint
        self._best_in_writing: State | None = None

    # -- as a fit goes ------------------------------------------------------------------------------------------------

    def on_start(self, epochs: int) -> None:
        """Take the folder, and clear away what a killed process had half written."""
        fit = self._fit()
        if self.keep_best and fit.validation is None:
            raise ConfigError("checkpoint: keep_best needs a validation set: it keeps what is best on one")
        self._claimed_here = self._lock is None
        self.claim()
        try:
            there = checkpoints_in(self.folder)
            if there and not fit.resumed:
                raise ConfigError(
                    f"{self.folder} has checkpoints of another fit: go on from them with "
                    f"fit(resume={str(self.folder)!r}), give another folder, or remove it"
                )
            remove_temporaries(self.folder)
        except BaseException:
            self._let_go()
            raise
        self._number = 1 + (int(there[0].name.partition("-")[0]) if there else 0)
        self._step, self._time, self._told = fit.step.t, time.monotonic(), False
        self._best = self._written = None

    def on_steps(self, step: int) -> None:
        """Write if it is time to."""
        if self._writing and self._writer is not None and self._writer.is_idle:
            self.wait()
        enough_steps = self.every > 0 and step // self.every > self._step // self.every
        if enough_steps or time.monotonic() - self._time >= self.every_seconds:
            self.save()

    def on_epoch(self, epoch: Epoch) -> None:
        """Write if it is time to, or the last epoch."""
        fit = self._fit()
        if self.keep_best and fit.rule.epoch == epoch.epoch:
            self._best = self._tree()
        if fit.over or (self.every_epochs and epoch.epoch % self.every_epochs == 0):
            self.save()
        else:
            self.on_steps(epoch.step)

    def on_end(self) -> None:
        """Wait for what is being written, and let go of the folder, unless it was claimed before the fit."""
        try:
            self.wait()
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            self._best = self._best_in_writing = None
            self._let_go()

    def save(self) -> None:
        """Write a checkpoint of where the fit stands; returns when its state is copied (:meth:`wait` for the file).

        To be called where ``Trainer.state_dict`` may be: from ``on_epoch`` or ``on_steps`` of a callback.
        """
        self.wait()
        step = self._fit().step.t
        if step == self._written:  # as where a signal comes when it was time anyway
            return
        self._step, self._time = step, time.monotonic()
        if self.is_taken():
            self._report(f"another run has taken {self.folder} meanwhile")
            return
        if not (self.folder / _LOCK_FILE).exists():  # someone has removed it, or the folder
            self.release()
            try:
                self.claim()
            except ConfigError as error:
                self._report(str(error))
                return
        try:
            state = self._tree()
        except MemoryError:
            self._report("there is no memory for a copy of the state")
            return
        # The best goes first: a run that goes on from the numbered one would not make it again.
        states = {} if self._best is None else {self.folder / BEST_FILE: self._best}
        states[self.folder / f"{self._number:06d}-step-{self._step}.safetensors"] = state
        self._number, self._best, self._best_in_writing = self._number + 1, None, self._best
        self._written, self._writing = step, True
        self._writer = self._writer or _Writer()
        self._writer.start(functools.partial(self._write, states))

    def wait(self) -> None:
        """Until the last checkpoint is on the disk, or is known not to be; ``say`` is told then."""
        if self._writing and self._writer is not None:
            self._writer.wait()
            self._writing = False
            if self._problem is not None:
                self._best, self._written = self._best or self._best_in_writing, None
            self._report(self._problem)

    def _report(self, problem: str | None) -> None:
        """Of several failures in a row one is told, however long the disk stays full."""
        if problem is not None and not self._told:
            self.say(f"{problem}; the checkpoints before it stay, and training goes on")
        self._told = problem is not None

    def _write(self, states: Mapping[Path, State]) -> None:
        """In the thread: the files, then no more of the old ones than are to be kept."""
        problems: list[str] = []
        for path, state in states.items():
            try:
                save_checkpoint(path, state)
            except CheckpointError as error:
                problems.append(str(error))
            except MemoryError:
                problems.append(f"there is no memory to write {path} from")
        try:
            for old in checkpoints_in(self.folder)[self.keep :]:
                old.unlink(missing_ok=True)
        except OSError as error:
            problems.append(f"{self.folder}: {error.strerror}")
        self._problem = "; ".join(problems) or None

    def _tree(self) -> State:
        assert self.trainer is not None, "_fit was called"
        return {**self.more, "fit": self.trainer.state_dict()}

    def _fit(self) -> FitState:
        if self.trainer is None or self.trainer.current is None:
            raise ConfigError("a Checkpoint is a callback of a trainer: Trainer(net, callbacks=[Checkpoint(folder)])")
        return self.trainer.current

    # -- one fit at a time --------------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Make the folder, and keep others from writing to it until :meth:`release`, or until the process ends.

        Raises
        ------
        ConfigError
            If another process, or another ``Checkpoint``, writes to it, or it cannot be made.
        """
        if self._lock is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / _LOCK_FILE, "ab", opener=_no_link)  # noqa: SIM115
        except OSError as error:
            if error.errno in _NO_FILE:
                raise ConfigError(
                    f"{self.folder / _LOCK_FILE} is a link or no regular file; remove it, or give another folder"
                ) from None
            raise ConfigError(f"cannot make the checkpoint folder {self.folder}: {error.strerror}") from None
        try:
            _lock(lock)
        except OSError as error:
            if error.errno in _IN_USE:
                lock.close()
                raise ConfigError(
                    f"{self.folder} is in use by another run: wait until it has ended, or give another folder"
                ) from None
            self.say(  # some network disks have no locks
                f"cannot lock {self.folder}: {error.strerror}; training goes on without, so start no other run there"
            )
        self._lock = lock

    def _let_go(self) -> None:
        if self._claimed_here:
            self.release()

    def is_taken(self) -> bool:
        """Whether the claimed folder was removed, and made again by another run."""
        try:
            there = (self.folder / _LOCK_FILE).stat()
        except OSError:
            return False
        return self._lock is not None and not os.path.samestat(os.fstat(self._lock.fileno()), there)

    def release(self) -> None:
        """Let others write to the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class _Writer:
    """A thread that does one thing after the other. It is started once: a busy machine takes its time to start one."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle, self._error = threading.Event(), None
        threading.Thread(target=self._work, name="checkpoint", daemon=True).start()

    _error: BaseException | None

    @property
    def is_idle(self) -> bool:
        """Whether it has done what it was given."""
        return self._idle.is_set()

    def start(self, task: Callable[[], None]) -> None:
        """Have a task done; the one before must have been waited for."""
        self._idle.clear()
        self._tasks.put(task)

    def wait(self) -> None:
        """Until the task is done; raises what it raised."""
        self._idle.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """End the thread."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except BaseException as error:
                self._error = error
            del task  # and the states that it holds
            self._idle.set()


def _no_link(path: str, flags: int) -> int:
    """Open a file, but none elsewhere, to which a link in a folder of several people may lead, and no pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def _lock(file: IO[bytes]) -> None:
    """Lock a file for this open file alone, which the system undoes when it is closed, by a kill too."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
