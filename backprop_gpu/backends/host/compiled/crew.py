"""Playing a recorded step on several cores.

The thread that called for it, the leader, opens one phase after the other and takes its tracks; followers take tracks
too. A track is taken by swapping a ticket, so nobody waits for a follower that has not come: where another program has
the other cores, the leader plays all the tracks itself. It waits only for a track that somebody has begun. Whoever
plays it, a track has the same bits.

A follower looks at nothing but the words it shares with the leader before it has a track, and the leader goes nowhere
before a track has ended: so no follower ever touches a program that is gone. Between two plays followers look out for
the next one a while, since the next epoch often follows at once; then they sleep.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import sys
import threading
import time
from typing import Any

import numpy as np

from ...cpu.blas import usable_cores
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

# Words that leader and followers share, each in a cache line of its own; from _AWAKE on one for each follower.
_TICKET, _ENDED, _SCORE, _LEADING, _CORES, _AWAKE = 0, 128, 256, 384, 512, 640
# A ticket holds the number of the open phase (from 1; 0: none is) and, in its lower bits, which of its tracks are free.
MOST_TRACKS = 32
_SPINS = 5_000  # looks at a word, some 100 us, before the operating system is asked to run someone else
_IDLE = _SPINS + 500  # looks before a follower that nobody needs goes to sleep
_LIMITS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # in OpenBLAS's order
SHORT_SECONDS = 100e-6  # of work that is not worth waking a thread, unless the last work ended no longer ago


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
def _take(shared, own):
    """Take a free track of the open phase, ``own`` if it is, since its data are in this core's cache; -1: none is."""
    while True:
        ticket = look(shared + _TICKET)
        if ticket & (1 << MOST_TRACKS) - 1 == 0:
            return -1
        track = own if ticket >> own & 1 else 0
        while ticket >> track & 1 == 0:
            track += 1
        if swap(shared + _TICKET, ticket, ticket ^ 1 << track) != 0:
            return track


@inline
def _play_open(score, shared, track):
    """A track of the open phase that this thread has taken."""
    n_phases = integers(score, 1)[0]
    p = (look(shared + _TICKET) >> MOST_TRACKS) - 1
    _play_track(score, n_phases, integers(score + 8, n_phases + 1)[p] + track)
    add_one(shared + _ENDED)


@inline
def _wait(spins, offer):
    """Look again soon, or after others had the core; returns how often this has been."""
    if spins < _SPINS:
        pause()
    else:
        system_yield(offer)
    return spins + 1


def lead(score: Any, times: Any, shared: Any, cores: Any, offer: Any) -> None:
    """Play a score ``times`` times over, on so many cores if others come and nobody else is leading.

    Who leads is settled in here, where no signal and no exception comes in between.
    """
    n_phases = integers(score, 1)[0]
    phases = integers(score + 8, n_phases + 1)
    together = cores > 1 and swap(shared + _LEADING, 0, 1) != 0
    if together:
        publish(shared + _SCORE, score)
        publish(shared + _CORES, cores)
    for _ in range(times):
        for p in range(n_phases):
            first, n = phases[p], phases[p + 1] - phases[p]
            if n == 1 or not together:
                for track in range(n):
                    _play_track(score, n_phases, first + track)
                continue
            publish(shared + _ENDED, 0)
            publish(shared + _TICKET, (p + 1) << MOST_TRACKS | (1 << n) - 1)
            track = _take(shared, 0)
            while track >= 0:
                _play_open(score, shared, track)
                track = _take(shared, 0)
            spins = 0
            while look(shared + _ENDED) < n:
                spins = _wait(spins, offer)
    if together:
        publish(shared + _LEADING, 0)


def follow(shared: Any, own: Any, offer: Any) -> None:
    """Take tracks of the phases that ``lead`` opens, ``own`` if it can, until there has been nothing to do for long."""
    publish(shared + _AWAKE + 128 * own, 1)
    idle, spins = 0, 0
    while idle < _IDLE:
        track = _take(shared, own) if own < look(shared + _CORES) else -1
        if track >= 0:
            _play_open(look(shared + _SCORE), shared, track)
            idle, spins = 0, 0
        else:
            spins = _wait(spins, offer)
            idle = 0 if look(shared + _LEADING) else idle + 1
    publish(shared + _AWAKE + 128 * own, 0)


_leader = Native("lead", 5, lambda: lead)
_follower = Native("follow", 3, lambda: follow)


class Score:
    """The phases of a program as the threads read them; it keeps the calls, whose rows they are made of.

    Attributes
    ----------
    cores : int
        How many can play it.
    seconds : float
        About how long it takes on one core.
    pace : Pace or None
        How fast it was, alone and together; None before it has been played.
    address : int
        Where it begins.
    """

    def __init__(self, calls: list[Call], cores: int) -> None:
        self.calls, phases = calls, phases_of(calls, cores)
        tracks = [track for phase in phases for track in phase.tracks]
        first_tracks = np.cumsum([0, *(len(phase.tracks) for phase in phases)])
        first_calls = np.cumsum([0, *(len(track.parts) for track in tracks)])
        words = [len(phases), *first_tracks.tolist(), *first_calls.tolist()]
        rows = {id(call): call.row_addresses for call in calls}
        for call, part in (made for track in tracks for made in track.parts):
            words += [call.kernel.address, rows[id(call)][part]]
        self.words = np.array(words, np.int64)
        self.cores = max((len(phase.tracks) for phase in phases), default=1)
        self.seconds = 1e-9 * sum(track.nanoseconds for track in tracks)
        self.pace: Pace | None = None
        self.address = int(self.words.ctypes.data)


class _Follower:
    """A thread that follows when it is woken."""

    def __init__(self, own: int, shared: np.ndarray) -> None:
        self._own, self._shared, self._wanted = own, shared, threading.Semaphore(0)
        threading.Thread(target=self._work, name="backprop_gpu crew", daemon=True).start()

    @property
    def awake(self) -> bool:
        """Whether it is looking out for tracks."""
        return bool(self._shared[(_AWAKE + 128 * self._own) // 8])

    def wake(self) -> None:
        """Let it come; nobody waits for it."""
        self._wanted.release()

    def _work(self) -> None:
        while True:
            self._wanted.acquire()
            while self._wanted.acquire(blocking=False):  # woken more than once before it came
                pass
            _follower(self._shared.ctypes.data, self._own, _yield_address())


class Crew:
    """The leader's view of the threads of this process that follow: one program at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._forget()
        if hasattr(os, "register_at_fork"):  # threads do not survive a fork
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock, self._followers, self._paces = threading.RLock(), list[_Follower](), dict[int, Pace]()
        self._ended = -math.inf
        self._shared = np.zeros((_AWAKE + 128 * MOST_TRACKS) // 8, np.int64)
        self._shared_address = self._shared.ctypes.data

    def play(self, score: Score, times: int, limit: int = MOST_TRACKS) -> None:
        """Play, some hundredths of a second at a time: together if that is faster and no other thread is leading.

        ``limit``: on how many cores at most.
        """
        alike = round(math.log2(score.seconds + 1e-9))
        pace = score.pace = score.pace or Pace(score.seconds, self._paces.get(alike))
        self._paces[alike] = pace
        while times > 0:
            together, steps = pace.next(times)
            cores = min(limit, self.size) if together else 1
            start = time.perf_counter()
            follows = start - self._ended < SHORT_SECONDS  # as the steps of short epochs do, each by itself
            if cores > 1 and not self._come(cores - 1, follows or steps * score.seconds > SHORT_SECONDS):
                together, cores = False, 1
            self._play(score, steps, cores)
            self._ended = time.perf_counter()
            pace.took(together, steps, self._ended - start)
            times -= steps

    def _play(self, score: Score, steps: int, cores: int) -> None:
        _leader(score.address, steps, self._shared_address, cores, _yield_address())

    def _come(self, count: int, wake: bool) -> bool:
        """Whether followers are awake, or were woken now: nobody waits for them."""
        with self._lock:
            if not self._followers:
                # Made here: a thread that compiled would hold locks which a process forked meanwhile never gets.
                for native in (_leader, _follower):
                    native.prepare()
                self._followers = [_Follower(i, self._shared) for i in range(1, self.size)]
        asleep = [follower for follower in self._followers[:count] if not follower.awake]
        if wake:
            for follower in asleep:
                follower.wake()
            return True
        return len(asleep) < count


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
