"""Which way of playing a recorded step is the faster one here and now, alone or together, found out as it goes.

Whether other cores are a help depends on what nobody tells: where the system has put the threads, how long a cache line
takes from core to core, what other programs run. Both ways give the same bits, so a replay may change as it goes.
"""

from __future__ import annotations

import math

CHUNK_SECONDS = 0.02  # of one way; Python looks at signals in between
TRIAL_SECONDS = 0.002  # of the slower way, to see whether it still is
_FIRST_TRIAL = 0.01  # of playing one way before the other is tried at all
_BETWEEN_TRIALS = 30  # times as long as the last trial took


class Pace:
    """Seconds a step takes either way, and when the other way is to be tried again.

    Parameters
    ----------
    seconds : float
        About how long a step takes on one core.
    like : Pace, optional
        Of another program, whose steps take about as long: begin the way that was faster there.
    """

    def __init__(self, seconds: float, like: Pace | None = None) -> None:
        together = like is None or like.best_together
        self._together, self._alone = (seconds, math.inf) if together else (math.inf, seconds)
        self._untried = True  # nothing measured yet: the first step also brings the data into the caches
        self._due: float = _FIRST_TRIAL if like is None else like._due

    @property
    def best_together(self) -> bool:
        """Whether playing together was faster."""
        return self._together <= self._alone

    def next(self, times: int) -> tuple[bool, int]:
        """Whether to play together, and how many of ``times`` steps."""
        if self._untried:
            return self.best_together, 1
        trial = self._due <= 0.0
        together = self.best_together != trial
        this, other = (self._together, self._alone) if together else (self._alone, self._together)
        known = min(this, 2.0 * other)
        steps = int((TRIAL_SECONDS if trial else CHUNK_SECONDS) / max(known, 1e-7))
        return together, max(1, min(times, steps))

    def took(self, together: bool, steps: int, seconds: float) -> None:
        """What playing has taken."""
        if self._untried:
            self._untried = False
            return
        trial = together != self.best_together
        if together:
            self._together = seconds / steps
        else:
            self._alone = seconds / steps
        self._due = _BETWEEN_TRIALS * seconds if trial else self._due - seconds
