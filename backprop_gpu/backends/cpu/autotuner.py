"""Chooses between serial and parallel execution of a recorded step by timing both.

Whether other cores are a help depends on what nobody tells: where the system has put the threads, how long a cache line
takes from core to core, what other programs run. Both give the same bits, so a run may change as it goes.
"""

from __future__ import annotations

import math

CHUNK_SECONDS = 0.02  # of one way; Python looks at signals in between
TRIAL_SECONDS = 0.002  # of the slower way, to see whether it still is
_FIRST_TRIAL = 0.01  # of running one way before the other is tried at all
_BETWEEN_TRIALS = 30  # times as long as the last trial took


class Autotuner:
    """Seconds a step takes either way, and when the other way is to be tried again.

    Parameters
    ----------
    seconds : float
        About how long a step takes on one core.
    like : Autotuner, optional
        Of another program, whose steps take about as long: begin the way that was faster there.
    """

    def __init__(self, seconds: float, like: Autotuner | None = None) -> None:
        parallel = like is None or like.parallel_is_faster
        self._parallel, self._serial = (seconds, math.inf) if parallel else (math.inf, seconds)
        self._untried = True  # nothing measured yet: the first step also brings the data into the caches
        self._due: float = _FIRST_TRIAL if like is None else like._due

    @property
    def parallel_is_faster(self) -> bool:
        """Whether it was, as far as is known."""
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
        """How long so many steps have taken."""
        if self._untried:
            self._untried = False
            return
        trial = parallel != self.parallel_is_faster
        if parallel:
            self._parallel = seconds / steps
        else:
            self._serial = seconds / steps
        self._due = _BETWEEN_TRIALS * seconds if trial else self._due - seconds
