"""The ring of transfers on stand-in streams: work runs as late as events allow, and in any order that they allow."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backprop_gpu.backends.cuda.transfers import DEPTH, RingTransfers


class Event:
    """Recorded on a stream: done when all that was asked of the stream before is. Never recorded: done.

    Who waits, waits for what was recorded last when it began to wait.
    """

    def __init__(self, disable_timing: bool = False) -> None:
        self.mark, self.gpu = SimpleNamespace(done=True), None

    def record(self, stream: Stream) -> None:
        self.gpu, self.mark = stream.gpu, SimpleNamespace(done=False)
        stream.ask(partial(setattr, self.mark, "done", True))

    def synchronize(self) -> None:
        while not self.mark.done:
            self.gpu.one()


class Stream:
    def __init__(self, gpu: Gpu, non_blocking: bool = False) -> None:
        self.gpu, self.queue = gpu, []
        gpu.streams.append(self)

    def ask(self, work: Callable[[], None], ready: Callable[[], bool] = lambda: True) -> None:
        self.queue.append((ready, work))

    def wait_event(self, event: Event) -> None:
        mark = event.mark
        self.ask(lambda: None, lambda: mark.done)


class Gpu:
    """Streams whose work is done one piece at a time, from a stream that is drawn among those that may go on."""

    def __init__(self, seed: int) -> None:
        self.streams: list[Stream] = []
        self.rng = random.Random(seed)

    def one(self) -> bool:
        able = [stream for stream in self.streams if stream.queue and stream.queue[0][0]()]
        if not able:
            return False
        _, work = self.rng.choice(able).queue.pop(0)
        work()
        return True

    def drain(self) -> None:
        while self.one():
            pass
        assert not any(stream.queue for stream in self.streams), "streams wait for each other"


class DeviceArray:
    """Numbers that are written when the stream gets there."""

    current: Stream

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape = x, x.shape

    def set(self, host: np.ndarray, stream: Stream) -> None:
        stream.ask(lambda: np.copyto(self.x, host))  # pinned memory is read when the copy runs

    def __setitem__(self, key: Any, value: DeviceArray) -> None:
        self.current.ask(lambda: np.copyto(self.x, value.x))


class FakeBackend:
    def __init__(self, gpu: Gpu) -> None:
        compute = Stream(gpu)
        self.array = type("OfThisGpu", (DeviceArray,), {"current": compute})
        self.compute = compute
        cuda = SimpleNamespace(
            Stream=lambda non_blocking: Stream(gpu, non_blocking),
            Event=Event,
            get_current_stream=lambda: compute,
            alloc_pinned_memory=bytearray,
        )
        self.xp = SimpleNamespace(cuda=cuda)
        self.gpu = gpu

    def zeros(self, shape: Any, dtype: str) -> DeviceArray:
        return self.array(np.full(shape, -1, dtype))

    def activate(self) -> Any:
        return contextlib.nullcontext()

    def synchronize(self) -> None:
        self.gpu.drain()


def batches(n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for k in range(n):
        yield np.full((4, 3), k, np.float32), np.full((4, 1), 100 + k, np.int64)


def run(seed: int, transfers: type[RingTransfers] = RingTransfers, n: int = 40) -> list[tuple[float, float]]:
    """What each of n steps finds in its buffers, with a host that is now and then far ahead."""
    gpu = Gpu(seed)
    backend: Any = FakeBackend(gpu)
    X, Y = backend.zeros((4, 3), "float32"), backend.zeros((4, 1), "int64")
    ring = transfers(backend, [X, Y], ["float32", "int64"])
    found: list[tuple[float, float]] = []

    def step() -> None:
        assert X.x.min() == X.x.max()
        assert Y.x.min() == Y.x.max()
        found.append((float(X.x[0, 0]), float(Y.x[0, 0])))

    for x, y in batches(n):
        host = ring.host()
        assert [(h.shape, h.dtype) for h in host] == [((4, 3), np.float32), ((4, 1), np.int64)]
        host[0][...], host[1][...] = x, y
        ring.send()
        backend.compute.ask(step)
        for _ in range(gpu.rng.choice([0, 0, 1, 5, 20])):
            gpu.one()
    gpu.drain()
    return found


@pytest.mark.parametrize("seed", range(20))
def test_every_step_finds_its_own_batch(seed: int) -> None:
    assert run(seed) == [(k, 100 + k) for k in range(40)]


class Forgetful(RingTransfers):
    """Leaves out one of the waits."""

    left_out = ""

    def host(self) -> list[np.ndarray]:
        return self._slots[self._next].pinned if self.left_out == "host" else super().host()

    def send(self) -> None:
        waiter = {"copy": self._copies, "compute": self._cp.cuda.get_current_stream()}.get(self.left_out)
        if waiter is not None:
            waiter.wait_event = lambda event: None  # type: ignore[method-assign]
        super().send()


@pytest.mark.parametrize("left_out", ["host", "copy", "compute"])
def test_each_wait_is_needed(left_out: str) -> None:
    faulty = type("Faulty", (Forgetful,), {"left_out": left_out})
    expected = [(k, 100 + k) for k in range(40)]
    wrong = 0
    for seed in range(20):
        try:
            wrong += run(seed, faulty) != expected
        except AssertionError:
            wrong += 1
    assert wrong


def test_the_host_may_be_ahead_by_the_ring() -> None:
    gpu = Gpu(0)
    backend: Any = FakeBackend(gpu)
    out = backend.zeros((4, 3), "float32")
    ring = RingTransfers(backend, [out], ["float32"])
    for _ in range(DEPTH):
        ring.host()
        ring.send()
    assert sum(len(stream.queue) for stream in gpu.streams) >= 4 * DEPTH  # nothing has been waited for
