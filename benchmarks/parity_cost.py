"""What ``parity.check`` costs beside the step that it checks: time and memory, for every kernel set of the host."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any

from backprop_gpu.errors import DeviceError, MissingDependencyError

from .interleaved import interleave, summary
from .worker_process import WorkerProcess

SIZES, EXAMPLES = (784, 512, 512, 256, 10), 1024
KERNELS = ("native", "reference")


class ParityWorker:
    """One kernel set at work, in its own process."""

    def __init__(self, kernels: str, sizes: tuple[int, ...] = SIZES, m: int = EXAMPLES) -> None:
        import numpy as np

        self.kernels, self.sizes = kernels, sizes
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((m, sizes[0])).astype("float32")
        self.y = rng.integers(0, sizes[-1], (m, 1))
        self._make()

    def _make(self) -> None:
        from backprop_gpu.network.dense_net import DenseNet
        from backprop_gpu.network.step import TrainingStep

        loss = "categorical_cross_entropy"
        self.net = DenseNet(self.sizes, loss=loss, device="numpy", kernels=self.kernels)
        self.step = TrainingStep(self.net, "adam")
        self.columns = self.net.upload_columns(self.X), self.net.upload_columns(self.y)

    def measure(self, what: str, min_time: float) -> float:
        """Seconds of a step or of a check of one, the mean over ``min_time`` seconds."""
        done, start = 0, time.perf_counter()
        while not done or time.perf_counter() - start < min_time:
            self._once(what)
            done += 1
        return (time.perf_counter() - start) / done

    def _once(self, what: str) -> None:
        from backprop_gpu.parity.checking import check

        if what == "step":
            self.step(*self.columns)
            return
        report = check(self.net, self.X, self.y)
        if not report.ok:
            raise DeviceError(report.summary())

    def peak(self, what: str) -> int:
        """Bytes at the most: of a network with its state and buffers in a step, or of a check on top of the network."""
        self._once(what)  # what is imported on the way does not count
        tracemalloc.start()
        try:
            if what == "step":
                self._make()
            self._once(what)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def rows(
    repeats: int,
    min_time: float,
    variables: Mapping[str, str | None],
    sizes: tuple[int, ...] = SIZES,
    m: int = EXAMPLES,
) -> Iterator[dict[str, Any]]:
    """Two rows a kernel set, step and check; the check's ratio is to the step of the same repeat, memory beside it."""
    for kernels in KERNELS:
        try:
            worker = WorkerProcess(".parity_cost:ParityWorker", kernels, sizes, m, variables=variables)
        except (DeviceError, MissingDependencyError) as error:
            yield {"kernels": kernels, "note": str(error)}
            continue
        try:
            for what in ("step", "check"):
                worker.call("measure", what, 0.0)  # compiles, and warms up
            seconds = interleave(["step", "check"], repeats, lambda what: float(worker.call("measure", what, min_time)))  # noqa: B023
            peaks = {what: int(worker.call("peak", what)) for what in ("step", "check")}
        finally:
            worker.close()
        for what in ("step", "check"):
            memory = {"peak": peaks[what], "peak_ratio": peaks[what] / peaks["step"]}
            yield {"kernels": kernels, "what": what} | summary(seconds[what], seconds["step"]) | memory
