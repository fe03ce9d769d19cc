"""Playing a recorded step on several cores.

The thread that called for it opens one phase after the other and takes its tracks; threads that wait for such work take
tracks too. A track is taken by swapping a ticket, so nobody waits for a thread that has not come: where another program
has the other cores, the caller plays all the tracks itself. It waits only for a track that somebody has begun. If that
takes far longer than it should, because that thread lost its core, the caller plays alone for a while, and for twice as
long each time that happens again. Who plays a track changes none of its bits.
"""

from __future__ import annotations

import ctypes
import functools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..blas import usable_cores
from ..openblas import numpys_openblas
from .calling import call as call_kernel
from .calling import integers
from .native import Native
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
_ALONE_NANOSECONDS = 10e6, 1e9  # how long, at least and at most, the caller then plays alone before it tries again
_PAUSE_NANOSECONDS = 20
CHUNK_SECONDS = 0.1  # Python looks at signals between chunks, so Ctrl-C is answered within this
SHORT_SECONDS = 100e-6  # of work that is not worth waking a thread


# A score is int64: number of phases; for each phase where its tracks begin and how long to wait for one (in looks), and
# one more for the end; for each track where its calls begin, and one more; (kernel, row) of each call.
@inline
def _play_track(score, n_phases, track):
    tracks = score + 8 * (1 + 2 * (n_phases + 1))
    n_tracks = integers(score, 2 * n_phases + 2)[2 * n_phases + 1]
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


def lead(score: Any, times: Any, shared: Any, patience: Any, offer: Any) -> None:
    """Play a score ``times`` times over, with whoever comes.

    ``patience``: how many steps to play alone, how many next time, and the least and most of that.
    """
    n_phases = integers(score, 1)[0]
    phases = integers(score + 8, 2 * (n_phases + 1))
    alone = integers(patience, 4)
    opening = 0
    for _ in range(times):
        for p in range(n_phases):
            first, end, limit = phases[2 * p], phases[2 * p + 2], phases[2 * p + 1]
            n = end - first
            if n == 1 or alone[0] > 0:
                for track in range(first, end):
                    _play_track(score, n_phases, track)
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
                spins += 1
                if spins < limit:
                    pause()
                else:
                    system_yield(offer)
            if spins >= limit:
                alone[0] = alone[1]
                alone[1] = min(2 * alone[1], alone[3])
        if alone[0] > 0:
            alone[0] -= 1
        elif alone[1] > alone[2]:
            alone[1] -= 1


def follow(score: Any, shared: Any, own: Any, offer: Any) -> None:
    """Take tracks of the phases that ``lead`` opens, ``own`` if it can, until it stops."""
    n_phases = integers(score, 1)[0]
    phases = integers(score + 8, 2 * (n_phases + 1))
    spins = 0
    while look(shared + _STOP) == 0:
        ticket = look(shared + _TICKET)
        p = ticket >> MOST_TRACKS & (1 << _PHASE_BITS) - 1
        first, n = phases[2 * p], phases[2 * p + 2] - phases[2 * p]
        full = (1 << n) - 1
        if ticket != _CLOSED and ticket & full != full:
            track = own if own < n and ticket >> own & 1 == 0 else 0
            while ticket >> track & 1:
                track += 1
            if swap(shared + _TICKET, ticket, ticket | 1 << track) != 0:
                _play_track(score, n_phases, first + track)
                add_one(shared + _ENDED)
                spins = 0
        elif spins < _SPINS:
            spins += 1
            pause()
        else:
            system_yield(offer)


_leader = Native("lead", 5, lambda: lead)
_follower = Native("follow", 4, lambda: follow)


class Score:
    """The phases of a program as the threads read them; it keeps the calls, whose rows they are made of."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls, phases = calls, phases_of(calls)
        words, tracks = [len(phases)], [track for phase in phases for track in phase.tracks]
        first = 0
        for phase in phases:
            longest = max(track.nanoseconds for track in phase.tracks)
            words += [first, _SPINS + int(2 * longest / _PAUSE_NANOSECONDS)]
            first += len(phase.tracks)
        words += [first, 0]
        bounds = np.cumsum([0, *(len(track.parts) for track in tracks)])
        words += bounds.tolist()
        for call, part in (made for track in tracks for made in track.parts):
            words += [call.kernel.address, call.rows[part].ctypes.data]
        self.words = np.array(words, np.int64)
        self.nanoseconds = sum(track.nanoseconds for track in tracks)
        least, most = (max(1, int(time / max(self.nanoseconds, 1.0))) for time in _ALONE_NANOSECONDS)
        self.patience = np.array([0, least, least, most], np.int64)

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
        """Play on all cores, or on this one if another thread is playing or the work is short."""
        shared = np.zeros(64, np.int64)
        free = times * score.nanoseconds > 1e9 * SHORT_SECONDS and self._free.acquire(blocking=False)
        try:
            if free:
                self._call(score, shared)
            given = (score.address, times, shared.ctypes.data, score.patience.ctypes.data, _yield_address())
            _leader(*given)
        finally:
            shared[_STOP // 8] = 1
            if free:
                self._free.release()

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


def in_chunks(play: Callable[[int], None], times: int) -> None:
    """Play a tenth of a second at a time; the first chunk is one step, which tells how long a step takes."""
    chunk = 1
    while times > 0:
        now = min(chunk, times)
        start = time.perf_counter()
        play(now)
        seconds = (time.perf_counter() - start) / now
        times -= now
        chunk = max(1, int(CHUNK_SECONDS / max(seconds, 1e-7)))
