"""Batches from the host while the device computes: pinned buffers, a copy stream, events both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._typing import Array
from ..base import Backend
from ..transfers import Transfers

DEPTH = 3  # one slot is written by the host, one is on its way, one is read by the device


class _Slot:
    """A batch's place: pinned memory on the host, memory on the device, and who has done what with it."""

    def __init__(self, cp: Any, backend: Backend, outs: Sequence[Array], dtypes: Sequence[str]) -> None:
        self.pinned = [_pinned(cp, tuple(out.shape), dtype) for out, dtype in zip(outs, dtypes, strict=True)]
        self.device = [backend.zeros(out.shape, dtype) for out, dtype in zip(outs, dtypes, strict=True)]
        self.arrived, self.read = (cp.cuda.Event(disable_timing=True) for _ in range(2))


def _pinned(cp: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Host memory that cannot be paged out, so that a copy from it runs beside everything else."""
    n = int(np.prod(shape, dtype=np.int64))
    memory = cp.cuda.alloc_pinned_memory(max(n * np.dtype(dtype).itemsize, 1))
    return np.frombuffer(memory, dtype, n).reshape(shape)


class RingTransfers(Transfers):
    """A ring of slots. The host waits for a slot's last copy, the copy for the device's last reading of it, and the
    device for the copy; so none waits for another as long as it is ahead by less than the ring.

    From a slot the batch is copied into the buffers that a recorded step knows: on the device, at its own bandwidth.
    """

    def __init__(self, backend: Backend, outs: Sequence[Array], dtypes: Sequence[str]) -> None:
        self._cp, self._backend, self._outs = backend.xp, backend, list(outs)
        with backend.activate():
            self._copies = self._cp.cuda.Stream(non_blocking=True)
            self._slots = [_Slot(self._cp, backend, outs, dtypes) for _ in range(DEPTH)]
            backend.synchronize()  # slots are zeroed on another stream than copies run on
        self._next = 0

    def host(self) -> list[np.ndarray]:
        """The next slot's pinned arrays, once the copy that read them last is done."""
        slot = self._slots[self._next]
        slot.arrived.synchronize()
        return slot.pinned

    def send(self) -> None:
        """Start the slot's copy; the current stream takes the batch over when it has arrived."""
        slot, compute = self._slots[self._next], self._cp.cuda.get_current_stream()
        self._copies.wait_event(slot.read)
        for pinned, array in zip(slot.pinned, slot.device, strict=True):
            array.set(pinned, stream=self._copies)
        slot.arrived.record(self._copies)
        compute.wait_event(slot.arrived)
        for out, array in zip(self._outs, slot.device, strict=True):
            out[...] = array
        slot.read.record(compute)
        self._next = (self._next + 1) % len(self._slots)
