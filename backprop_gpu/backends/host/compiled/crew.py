"""Playing a recorded step on several cores.

The thread that called for it opens one phase after the other and takes its tracks; threads that wait for such work take
tracks too. A track is taken by swapping a ticket, so nobody waits for a thread that has not come: where another program
has the other cores, the caller plays all the tracks itself. It waits only for a track that somebody has begun. Whoever
plays it, a track has the same bits.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..blas import usable_cores
from .calling import call as call_kernel
from .calling import integers
from .native import Native
from .pace import Pace
from .parts import Late, inline
from .phases import phases_of
from .recording import Call

_HOME = f"{__package__}.atomics"  # which says what these do
add_one: Any = Late(_HOME, "add_one")
swap: Any = Late(_HOME, "swap")
look: Any = Late(_HOME, "look")
publish: Any = Late(_HOME, "publish")
pause: Any = Late(_HOME, "pause")
system_yield: Any = Late(_HOME, "system_yield")

# Words of what the threads of one play share, each in a cache line of its own.
_TICKET, _ENDED, _STOP = 0, 128, 256
# A ticket holds the number of the open phase (from 1; 0: none yet) and, in its lower bits, which of the phase's tracks
# are taken. That is all there is to know: whoever swaps it for one with another bit has a track.
MOST_TRACKS = 32
_SPINS = 5_000  # looks at a word, some 100 us, before the operating system is asked to run someone else
_LIMITS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # in OpenBLAS's order
SHORT_SECONDS = 100e-6  # of work that is not worth waking a thread


# A score is int64: number of phases; for each phase where its tracks begin, and one more for the end; for each track
# where its calls begin, and one more; (kernel, row) of each call.
@inline
def _play_track(score, n_phases, track):
    tracks = score + 8 * (n_phases + 2)
    n_tracks = integers(score, n_phases + 2)[n_phases + 1]
    calls = tracks + 8 * (n_tracks + 1)
    bounds = integers(tracks, n_tracks + 1)
    for i in range(bounds[track], bounds[track + 1]):
        made = integers(calls + 16 * i, 2)
        call_kernel(made[0], made[1])


@inline
def _take(ticket_at, own, n):
    """Take a track of the open phase, ``own`` if it is free, since its data are in this core's cache; -1: none is."""
    while True:
        ticket = look(ticket_at)
        track = own if own < n else 0
        for _ in range(n):
            if ticket >> track & 1 == 0:
                break
            track = track + 1 if track + 1 < n else 0
        if ticket >> track & 1:
            return -1
        if swap(ticket_at, ticket, ticket | 1 << track) != 0:
            return track


@inline
def _wait(spins, offer):
    """Look again soon, or after others had the core; returns how often this has been."""
    if spins < _SPINS:
        pause()
    else:
        system_yield(offer)
    return spins + 1


def lead(score: Any, times: Any, shared: Any, together: Any, offer: Any) -> None:
    """Play a score ``times`` times over, with whoever comes if ``together``."""
    n_phases = integers(score, 1)[0]
    phases = integers(score + 8, n_phases + 1)
    for _ in range(times):
        for p in range(n_phases):
            first, n = phases[p], phases[p + 1] - phases[p]
            if n == 1 or together == 0:
                for track in range(n):
                    _play_track(score, n_phases, first + track)
                continue
            publish(shared + _ENDED, 0)
            publish(shared + _TICKET, (p + 1) << MOST_TRACKS)
            while True:
                track = _take(shared + _TICKET, 0, n)
                if track < 0:
                    break
                _play_track(score, n_phases, first + track)
                add_one(shared + _ENDED)
            spins = 0
            while look(shared + _ENDED) < n:
                spins = _wait(spins, offer)


def follow(score: Any, shared: Any, own: Any, offer: Any) -> None:
    """Take tracks of the phases that ``lead`` opens, ``own`` if it can, until it stops."""
    n_phases = integers(score, 1)[0]
    phases = integers(score + 8, n_phases + 1)
    spins = 0
    while look(shared + _STOP) == 0:
        ticket = look(shared + _TICKET)
        p = max(ticket >> MOST_TRACKS, 1) - 1
        first, n = phases[p], phases[p + 1] - phases[p]
        full = (1 << n) - 1
        if ticket != 0 and ticket & full != full:
            track = own if own < n and ticket >> own & 1 == 0 else 0
            while ticket >> track & 1:
                track += 1
            if swap(shared + _TICKET, ticket, ticket | 1 << track) != 0:
                _play_track(score, n_phases, first + track)
                add_one(shared + _ENDED)
                spins = 0
        else:
            spins = _wait(spins, offer)


_leader = Native("lead", 5, lambda: lead)
_follower = Native("follow", 4, lambda: follow)


class Score:
    """The phases of a program as the threads read them; it keeps the calls, whose rows they are made of.

    Attributes
    ----------
    seconds : float
        About how long it takes on one core.
    pace : Pace
        How fast it was, alone and together.
    """

    def __init__(self, calls: list[Call]) -> None:
        self.calls, phases = calls, phases_of(calls)
        tracks = [track for phase in phases for track in phase.tracks]
        first_tracks = np.cumsum([0, *(len(phase.tracks) for phase in phases)])
        first_calls = np.cumsum([0, *(len(track.parts) for track in tracks)])
        words = [len(phases), *first_tracks.tolist(), *first_calls.tolist()]
        for call, part in (made for track in tracks for made in track.parts):
            words += [call.kernel.address, call.rows[part].ctypes.data]
        self.words = np.array(words, np.int64)
        self.seconds = 1e-9 * sum(track.nanoseconds for track in tracks)
        self.pace = Pace(self.seconds)

    @property
    def address(self) -> int:
        """Where it begins."""
        return int(self.words.ctypes.data)


class _Follower:
    """A thread that waits, asleep, for a score to follow."""

    def __init__(self, own: int) -> None:
        self._jobs, self._own = queue.SimpleQueue[tuple[Score, np.ndarray]](), own
        threading.Thread(target=self._work, name="backprop_gpu crew", daemon=True).start()

    def call(self, score: Score, shared: np.ndarray) -> None:
        """Let it follow a score that it may find ended already."""
        self._jobs.put((score, shared))

    def _work(self) -> None:
        while True:
            score, shared = self._jobs.get()
            _follower(score.address, shared.ctypes.data, self._own, _yield_address())
            del score, shared  # a network that is gone is not kept


class Crew:
    """The threads of this process that follow."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._forget()
        if hasattr(os, "register_at_fork"):  # threads do not survive a fork
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._playing, self._followers = dict[str, int](), list[_Follower]()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other thread is playing. A thread that was interrupted in here does not keep itself out."""
        me = threading.get_ident()
        mine = self._playing.setdefault("thread", me) == me
        try:
            yield mine
        finally:
            if mine:
                self._playing.pop("thread", None)

    def play(self, score: Score, times: int, limit: int = MOST_TRACKS) -> None:
        """Play, some hundredths of a second at a time: together if that is faster and no other thread is playing.

        ``limit``: on how many cores at most.
        """
        while times > 0:
            together, steps = score.pace.next(times)
            with self._alone() as alone:
                together = together and alone and limit > 1 and steps * score.seconds > SHORT_SECONDS
                start = time.perf_counter()
                self._play(score, steps, min(limit, self.size) if together else 1)
            score.pace.took(together, steps, time.perf_counter() - start)
            times -= steps

    def _play(self, score: Score, steps: int, cores: int) -> None:
        shared = np.zeros(64, np.int64)
        try:
            if cores > 1:
                self._call(score, shared, cores - 1)
            _leader(score.address, steps, shared.ctypes.data, int(cores > 1), _yield_address())
        finally:
            shared[_STOP // 8] = 1

    def _call(self, score: Score, shared: np.ndarray, count: int) -> None:
        if not self._followers:
            # Made here: a thread that compiled would hold locks which a process forked meanwhile never gets.
            assert _leader.address
            assert _follower.address
            self._followers = [_Follower(i) for i in range(1, self.size)]
        for follower in self._followers[:count]:
            follower.call(score, shared)


@functools.cache
def crew() -> Crew:
    """A thread for each core that this process may use, or as many as the environment allows BLAS to have.

    A limit that is set later, by ``threadpoolctl``, holds while a program is played: the same parts on fewer cores.
    """
    given = (os.environ.get(name, "") for name in _LIMITS)
    limit = next((int(n) for n in given if n.isdecimal() and int(n) > 0), MOST_TRACKS)
    return Crew(min(limit, usable_cores(), MOST_TRACKS))


@functools.cache
def _yield_address() -> int:
    function = ctypes.CDLL("kernel32").SwitchToThread if sys.platform == "win32" else ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
