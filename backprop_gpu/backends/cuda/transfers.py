"""Batches from the host while the device computes: pinned buffers, a copy stream, events both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._typing import Array
from ..base import Backend
from ..transfers import Transfers

DEPTH = 3  # one slot is written by the host, one is being copied, one is read by the device


class _Slot:
    """Buffers of one batch: pinned host memory, device memory, and events for "copied" and "read"."""

    def __init__(self, cp: Any, backend: Backend, outs: Sequence[Array], dtypes: Sequence[str]) -> None:
        self.pinned = [_pinned(cp, tuple(out.shape), dtype) for out, dtype in zip(outs, dtypes, strict=True)]
        self.device = [backend.zeros(out.shape, dtype) for out, dtype in zip(outs, dtypes, strict=True)]
        self.copied, self.read = (cp.cuda.Event(disable_timing=True) for _ in range(2))


def _pinned(cp: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Host memory that cannot be paged out, so that a copy from it is asynchronous."""
    n = int(np.prod(shape, dtype=np.int64))
    memory = cp.cuda.alloc_pinned_memory(max(n * np.dtype(dtype).itemsize, 1))
    return np.frombuffer(memory, dtype, n).reshape(shape)


class RingTransfers(Transfers):
    """A ring buffer of slots. The host waits for a slot's previous copy, the copy until the device has read the slot,
    the device for the copy; so the host can run ahead by the length of the ring.

    On the device the batch is copied from the slot into the buffers that the recorded step reads.
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
        slot.copied.synchronize()
        return slot.pinned

    def send(self) -> None:
        """Start the slot's copy; the current stream then waits for it and copies the batch into ``outs``."""
        slot, compute = self._slots[self._next], self._cp.cuda.get_current_stream()
        self._copies.wait_event(slot.read)
        for pinned, array in zip(slot.pinned, slot.device, strict=True):
            array.set(pinned, stream=self._copies)
        slot.copied.record(self._copies)
        compute.wait_event(slot.copied)
        for out, array in zip(self._outs, slot.device, strict=True):
            out[...] = array
        slot.read.record(compute)
        self._next = (self._next + 1) % len(self._slots)
