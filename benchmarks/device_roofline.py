"""What a card can do: the rate of its products and its bandwidth, measured; and the least time of a step from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_gpu.backends import get_backend
from backprop_gpu.backends.base import Backend

from .roofline import RooflineWorker
from .workloads import Workload

UPDATE_VALUES = 7  # read: parameters, gradient, two moments; written: all but the gradient
CUDA_SIZE, HOST_SIZE = 8192, 256


class DeviceRoofline(RooflineWorker):
    """The worker of a card's limits; its reference runs are those of the CPU."""

    def __init__(self, device: str) -> None:
        self.backend = get_backend(device)
        self.size = HOST_SIZE if self.backend.name == "numpy" else CUDA_SIZE

    def product_rate(self, dtype: str) -> float:
        """FLOP/s of a large product; CUPY_TF32, in the environment of this process, decides about float32."""
        n, xp = self.size, self.backend.xp
        with self.backend.activate():
            a, b = (self.backend.asarray(np.full((n, n), 0.5), dtype) for _ in range(2))
            out = self.backend.zeros((n, n), dtype)
            return 2.0 * n**3 / best(self.backend, lambda: xp.matmul(a, b, out=out))

    def bandwidth(self) -> float:
        """Bytes read and written a second by a large copy on the device."""
        n, xp = self.size**2 * 4, self.backend.xp
        with self.backend.activate():
            a, out = (self.backend.zeros((n,), "float32") for _ in range(2))
            return 8.0 * n / best(self.backend, lambda: xp.copyto(out, a))


def best(backend: Backend, call: Callable[[], Any], min_time: float = 0.02) -> float:
    """Seconds of a call on the device: the least of five means over ``min_time`` seconds each."""
    call()
    backend.synchronize()
    times = 1
    found: list[float] = []
    while len(found) < 5:
        start = time.perf_counter()
        for _ in range(times):
            call()
        backend.synchronize()
        seconds = time.perf_counter() - start
        if seconds < min_time and times < 10_000 and not found:
            times *= 2
        else:
            found.append(seconds / times)
    return min(found)


def roofline(work: Workload, rate: float, bandwidth: float) -> float:
    """Seconds that a step takes at least: its products at their measured rate, then the update's bytes."""
    return work.step_flops / rate + 4.0 * UPDATE_VALUES * work.parameters / bandwidth
