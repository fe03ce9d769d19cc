"""Chooses between serial and parallel execution of a recorded step by timing both.

Whether more cores help depends on things that cannot be queried: on which cores the threads run, how long a cache line
takes between them, what other programs are running. Both ways give the same bits, so the choice may change at any time.
"""

from __future__ import annotations

import math

CHUNK_SECONDS = 0.02  # of steps run the same way; between chunks Python handles signals
TRIAL_SECONDS = 0.002  # of steps run the slower way, to see whether it still is slower
_FIRST_TRIAL = 0.01  # seconds of the one way before the other is first tried
_BETWEEN_TRIALS = 30  # a trial follows after this many times the duration of the last one


class Autotuner:
    """Measured seconds of a serial and of a parallel step, and the time until the slower way is tried again.

    Parameters
    ----------
    seconds : float
        About how long a step takes on one core.
    like : Autotuner, optional
        The autotuner of another program whose steps take about as long: start with the way that was faster there.
    """

    def __init__(self, seconds: float, like: Autotuner | None = None) -> None:
        parallel = like is None or like.parallel_is_faster
        self._parallel, self._serial = (seconds, math.inf) if parallel else (math.inf, seconds)
        self._untried = True  # nothing measured yet: the first step also brings the data into the caches
        self._due: float = _FIRST_TRIAL if like is None else like._due

    @property
    def parallel_is_faster(self) -> bool:
        """Whether the parallel step was faster when last measured."""
        return self._parallel <= self._serial

    def next(self, times: int) -> tuple[bool, int]:
        """Whether to run in parallel, and how many of ``times`` steps."""
        if self._untried:
            return self.parallel_is_faster, 1
        trial = self._due <= 0.0
        parallel = self.parallel_is_faster != trial
        this, other = (self._parallel, self._serial) if parallel else (self._serial, self._parallel)
        known = min(this, 2.0 * other)
        steps = int((TRIAL_SECONDS if trial else CHUNK_SECONDS) / max(known, 1e-7))
        return parallel, max(1, min(times, steps))

    def record(self, parallel: bool, steps: int, seconds: float) -> None:
        """Take in how long so many steps took."""
        if self._untried:
            self._untried = False
            return
        trial = parallel != self.parallel_is_faster
        if parallel:
            self._parallel = seconds / steps
        else:
            self._serial = seconds / steps
        self._due = _BETWEEN_TRIALS * seconds if trial else self._due - seconds
