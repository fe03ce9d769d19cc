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
    members : int
        A bit for each of the parts: see :func:`_conflicts`.
    """

    parts: list[tuple[Call, int]] = field(default_factory=list)
    nanoseconds: float = 0.0
    members: int = 0


@dataclass
class _Placed:
    """A call, and what its parts must not be played at the same time as.

    Attributes
    ----------
    first : int
        The bit of its first part in the numbers below; its other parts have the next ones.
    against : list of int
        For each part, the bits of those that write what it touches or touch what it writes.
    """

    call: Call
    first: int
    against: list[int]


@dataclass
class Phase:
    """Tracks that may be played at once; the next phase begins when all have ended."""

    tracks: list[Track]
    solo: bool
    members: int = 0

    def waits_for(self, placed: _Placed) -> bool:
        """Whether anything here has to have ended, or begun, before the call."""
        return self.solo or placed.call.solo or any(self.members & against for against in placed.against)

    def add(self, placed: _Placed, cores: int) -> bool:
        """Take a call in, each part on a track of its own; False if it has to wait for the next phase."""
        call = placed.call
        if self.solo != call.solo:
            return False
        numbers = [0] if call.solo else self._tracks_for(placed, cores)
        for part, number in enumerate(numbers):
            while number >= len(self.tracks):
                self.tracks.append(Track())
            track, bit = self.tracks[number], 1 << placed.first + part
            track.parts.append((call, part))
            track.nanoseconds += call.nanoseconds / call.parts
            track.members |= bit
            self.members |= bit
        return bool(numbers)

    def _tracks_for(self, placed: _Placed, cores: int) -> list[int]:
        """The number of a track for each part, that of least work for a call in one; empty if there are none."""
        if placed.call.parts > 1:
            numbers = list(range(placed.call.parts))
            return numbers if all(self._free(placed.against[part], part) for part in numbers) else []
        work = [track.nanoseconds for track in self.tracks]
        work += [0.0] if len(work) < cores else []
        by_work = sorted(range(len(work)), key=lambda number: work[number])
        return next(([number] for number in by_work if self._free(placed.against[0], number)), [])

    def _free(self, against: int, number: int) -> bool:
        """Whether a part may be on a track, as far as the others are concerned."""
        own = self.tracks[number].members if number < len(self.tracks) else 0
        return not self.members & ~own & against


def _conflicts(calls: list[Call]) -> list[int]:
    """For each part of each call: the bits of the parts that write what it touches, or touch what it writes.

    Regions are gone through by address, each once, so that only those are compared that have addresses in common.
    """
    numbers: dict[Region, int] = {}
    readers, writers = list[int](), list[int]()  # bits of the parts, for each region

    def note(regions: list[Region], bit: int, members: list[int]) -> list[int]:
        found = [numbers.setdefault(region, len(numbers)) for region in regions]
        for number in found:
            if number >= len(readers):
                readers.extend([0] * (number + 1 - len(readers)))
                writers.extend([0] * (number + 1 - len(writers)))
            members[number] |= bit
        return found

    parts = [call.regions(part) for call in calls for part in range(call.parts)]
    noted = [(note(reads, 1 << i, readers), note(writes, 1 << i, writers)) for i, (reads, writes) in enumerate(parts)]
    writing = writers.copy()  # bits of the parts that write something of a region
    touching = [r | w for r, w in zip(readers, writers, strict=True)]
    begun: list[tuple[Region, int]] = []
    for region, number in sorted(numbers.items()):
        begun = [each for each in begun if each[0].end > region.start]
        for other, its in begun:
            if region.meets(other):
                writing[number] |= writers[its]
                writing[its] |= writers[number]
                touching[number] |= readers[its] | writers[its]
                touching[its] |= readers[number] | writers[number]
        begun.append((region, number))
    against = []
    for reads, writes in noted:
        bits = 0
        for number in reads:
            bits |= writing[number]
        for number in writes:
            bits |= touching[number]
        against.append(bits)
    return against


def phases_of(calls: list[Call], cores: int) -> list[Phase]:
    """The calls in few phases: each in the first one after all that it has to wait for.

    So networks that advance in one program go side by side, small ones on a track each, from first call to last.
    """
    phases: list[Phase] = []
    conflicts, end = _conflicts(calls), 0
    for call in calls:
        first, end = end, end + call.parts
        placed = _Placed(call, first, conflicts[first:end])
        position = len(phases)
        while position and not phases[position - 1].waits_for(placed):
            position -= 1
        if not any(phase.add(placed, cores) for phase in phases[max(position - 1, 0) :]):
            phases.append(Phase([Track() for _ in range(call.parts)], call.solo))
            phases[-1].add(placed, cores)
    return phases
