"""Each allocation fails once: the weights are those of a fit in which none did, or there is one clear error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from support.command import environment
from support.io_faults import preloaded
from support.standin import Memory, StandInBackend

from backprop_gpu.errors import DeviceError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.training.trainer import Trainer

LONG = bool(os.environ.get("BACKPROP_GPU_LONG_TESTS"))
SCRIPT = Path(__file__).resolve().parents[1] / "support" / "memory_faults.py"

CLEAR = (
    r"DeviceError: the (parameters and gradients|\w+ state vectors) of [\d -]+ do not fit on .*; make model\.hidden.*",
    r"DeviceError: the data set \(.*\) does not fit on .*; set training\.data_on: host",
    r"DeviceError: out of memory on .* (even with one example at a time: .*|in the middle of training; lower .*)",
    r"MemoryError: (Unable to allocate .* for an array with shape .*|\d+ bytes)?",  # beside a fit, or Python's own
)


def test_an_allocation_of_the_process_that_fails() -> None:
    """Of NumPy, of Python or of the kernel library, wherever in a fit it is."""
    env = environment(**preloaded("memory_faults"))
    done = subprocess.run([sys.executable, str(SCRIPT)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["kind"] for each in found] == ["native", "streamed", "estimator"]
    for each in found:
        assert sum(each["outcomes"].values()) == each["allocations"] > 15
        assert each["outcomes"].pop("same") >= 3  # a smaller micro-batch needed less
        for outcome in each["outcomes"]:
            assert any(re.fullmatch(clear, outcome) for clear in CLEAR), (each["kind"], outcome)


class FailsOnce(Memory):
    """Memory in which one allocation fails, the ``at``-th."""

    def __init__(self, at: int = 0) -> None:
        super().__init__(None)
        self.at, self.seen = at, 0

    def take(self, n: int) -> None:
        self.seen += 1
        if self.seen == self.at:
            raise MemoryError(f"{n} bytes")
        super().take(n)


def fitted(at: int = 0) -> tuple[DenseNet | None, FailsOnce, str]:
    """A fit on a device whose ``at``-th allocation fails: the network, and what was told."""
    device, told = StandInBackend(), ""
    device.memory = memory = FailsOnce(at)
    rng = np.random.default_rng(6)
    X, y = rng.normal(size=(24, 5)), rng.normal(size=(24, 2))
    net = None
    try:
        net = DenseNet([5, 7, 2], loss="squared_error", dtype="float64", device=device)
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 16, "l2": 0.01, "clip_norm": 1.0, "progress": False}
        Trainer(net, optimizer="adamw", **settings).fit(X, y, validation=(X, y))
    except (DeviceError, MemoryError) as error:
        told = f"{type(error).__name__}: {error}"
    return net, memory, told


def test_an_allocation_of_the_device_that_fails() -> None:
    net, memory, _ = fitted()
    assert net is not None
    right = net.parameters()
    outcomes: dict[str, int] = {}
    for at in range(1, memory.seen + 1, 1 if LONG else memory.seen // 60):
        net, _, told = fitted(at)
        outcomes[told.partition(":")[0]] = outcomes.get(told.partition(":")[0], 0) + 1
        if not told:
            assert net is not None
            for name, x in net.parameters().items():
                np.testing.assert_allclose(x, right[name], rtol=1e-9, atol=1e-12)
        elif net is not None:
            assert all(np.isfinite(x).all() for x in net.parameters().values())
            assert any(re.fullmatch(clear.replace("numpy", "standin:0"), told) for clear in CLEAR) or "bytes" in told, (
                told
            )
    assert set(outcomes) <= {"", "DeviceError", "MemoryError"}
    assert outcomes[""] >= 3
