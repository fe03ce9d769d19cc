"""What of a recorded program can be played at once: calls in parts, and the parts of several calls in phases.

A call is cut into parts by its units (rows of a product, examples of a batch, parameters), which do not depend on each
other. Parts with the same number make a track. A phase is a run of calls whose tracks touch nothing that another track
of the phase writes, so that tracks may be played in any order, on any core, with the same bits; a core that plays a
track takes a layer's product and the pass over its result together, while it is in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .recording import Call, Region


@dataclass
class Track:
    """Parts of calls that are played one after the other.

    Attributes
    ----------
    nanoseconds : float
        About how long they take on one core.
    """

    parts: list[tuple[Call, int]] = field(default_factory=list)
    nanoseconds: float = 0.0

    def add(self, call: Call, part: int) -> None:
        """After the others."""
        self.parts.append((call, part))
        self.nanoseconds += call.nanoseconds / call.parts

    def allows(self, call: Call, part: int) -> bool:
        """Whether a part that is played at the same time neither meets what this writes, nor writes what it touches."""
        if not self.parts:
            return True
        reads, writes = call.regions(part)
        for mine in (made.regions(i) for made, i in self.parts):
            if _meet(reads, mine[1]) or _meet(writes, mine[1]) or _meet(writes, mine[0]):
                return False
        return True


@dataclass
class Phase:
    """Tracks that may be played at once; the next phase begins when all have ended."""

    tracks: list[Track]
    solo: bool

    def waits_for(self, call: Call) -> bool:
        """Whether anything here has to have ended, or begun, before the call."""
        parts = range(call.parts)
        return self.solo or call.solo or not all(track.allows(call, part) for track in self.tracks for part in parts)

    def add(self, call: Call, cores: int) -> bool:
        """Take a call in, each part on a track of its own; False if it has to wait for the next phase."""
        if self.solo != call.solo:
            return False
        numbers = [0] if call.solo else self._tracks_for(call, cores)
        for part, number in enumerate(numbers):
            while number >= len(self.tracks):
                self.tracks.append(Track())
            self.tracks[number].add(call, part)
        return bool(numbers)

    def _tracks_for(self, call: Call, cores: int) -> list[int]:
        """The number of a track for each part, that of least work for a call in one; empty if there are none."""
        if call.parts > 1:
            numbers = list(range(call.parts))
            return numbers if all(self._free(call, part, part) for part in numbers) else []
        work = [track.nanoseconds for track in self.tracks]
        work += [0.0] if len(work) < cores else []
        by_work = sorted(range(len(work)), key=lambda number: work[number])
        return next(([number] for number in by_work if self._free(call, 0, number)), [])

    def _free(self, call: Call, part: int, number: int) -> bool:
        """Whether a part may be on a track, as far as the others are concerned."""
        return all(track.allows(call, part) for i, track in enumerate(self.tracks) if i != number)


def _meet(these: list[Region], those: list[Region]) -> bool:
    return any(this.meets(that) for this in these for that in those)


def phases_of(calls: list[Call], cores: int) -> list[Phase]:
    """The calls in few phases: each in the first one after all that it has to wait for.

    So networks that advance in one program go side by side, small ones on a track each, from first call to last.
    """
    phases: list[Phase] = []
    for call in calls:
        first = len(phases)
        while first and not phases[first - 1].waits_for(call):
            first -= 1
        if not any(phase.add(call, cores) for phase in phases[max(first - 1, 0) :]):
            phases.append(Phase([Track() for _ in range(call.parts)], call.solo))
            phases[-1].add(call, cores)
    return phases
