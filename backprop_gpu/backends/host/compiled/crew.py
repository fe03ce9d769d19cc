"""Playing a recorded step on several cores.

The thread that called for it opens one phase after the other and takes its tracks; threads that wait for such work take
tracks too. A track is taken by swapping a ticket, so nobody waits for a thread that has not come: where another program
has the other cores, the caller plays all the tracks itself. It waits only for a track that somebody has begun. Whoever
plays it, a track has the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import os
import queue
import sys
import threading
import time
from typing import Any

import numpy as np

from ..blas import usable_cores
from ..openblas import numpys_openblas
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
# A ticket holds, from the highest bit to the lowest: which opening of a phase this is, the phase's number, a bit for
# each of its tracks that is taken. That is all there is to know: whoever swaps it for one with another bit has a track.
MOST_TRACKS, _PHASE_BITS = 32, 16
_CLOSED = 0  # the ticket before the first phase is opened
_SPINS = 5_000  # looks at a word, some 100 us, before the operating system is asked to run someone else
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
    opening = 0
    for _ in range(times):
        for p in range(n_phases):
            first, n = phases[p], phases[p + 1] - phases[p]
            if n == 1 or together == 0:
                for track in range(n):
                    _play_track(score, n_phases, first + track)
                continue
            opening = (opening + 1) & 0x7FFF
            publish(shared + _ENDED, 0)
            publish(shared + _TICKET, ((opening << _PHASE_BITS) | p) << MOST_TRACKS)
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
        p = ticket >> MOST_TRACKS & (1 << _PHASE_BITS) - 1
        first, n = phases[p], phases[p + 1] - phases[p]
        full = (1 << n) - 1
        if ticket != _CLOSED and ticket & full != full:
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
        self._free, self._followers = threading.Lock(), list[_Follower]()

    def play(self, score: Score, times: int) -> None:
        """Play, some hundredths of a second at a time: together if that is faster and no other thread is playing."""
        while times > 0:
            together, steps = score.pace.next(times)
            together = together and steps * score.seconds > SHORT_SECONDS and self._free.acquire(blocking=False)
            start = time.perf_counter()
            try:
                self._play(score, steps, together)
            finally:
                if together:
                    self._free.release()
            score.pace.took(together, steps, time.perf_counter() - start)
            times -= steps

    def _play(self, score: Score, steps: int, together: bool) -> None:
        shared = np.zeros(64, np.int64)
        try:
            if together:
                self._call(score, shared)
            _leader(score.address, steps, shared.ctypes.data, int(together), _yield_address())
        finally:
            shared[_STOP // 8] = 1

    def _call(self, score: Score, shared: np.ndarray) -> None:
        if not self._followers:
            self._followers = [_Follower(i) for i in range(1, self.size)]
        for follower in self._followers:
            follower.call(score, shared)


@functools.cache
def crew() -> Crew:
    """As many threads as BLAS would use, but no more than this process has cores."""
    blas = numpys_openblas()
    return Crew(min(blas.threads if blas else 1, usable_cores(), MOST_TRACKS))


@functools.cache
def _yield_address() -> int:
    function = ctypes.CDLL("kernel32").SwitchToThread if sys.platform == "win32" else ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
