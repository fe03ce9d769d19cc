"""Every large allocation of a fit fails once: a script, run with ``memory_faults.c`` loaded before everything else.

    LD_PRELOAD=memory_faults.so python memory_faults.py

For every allocation of 4096 bytes or more, of whoever makes it (NumPy, Python, the kernel library), a fit is made in
which this one fails. A line of JSON for each kind of fit: how many there are, and what came of each: ``same`` weights,
or the error's type and text. The reference kernels are not among them: NumPy's own product of matrices crashes.
"""

from __future__ import annotations

import collections
import ctypes
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_gpu import DenseNet, MLPRegressor, Trainer
from backprop_gpu.errors import BackpropError

LEAST = 4096  # bytes: less than any array of the fits below
ROWS, BATCH = 192, 64


def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    return rng.normal(size=(ROWS, 20)), rng.normal(size=(ROWS, 20))


def trainer(kernels: str, data_on: str) -> Callable[[], dict[str, np.ndarray]]:
    X, y = table()

    def fit() -> dict[str, np.ndarray]:
        net = DenseNet([20, 24, 20], loss="squared_error", dtype="float64", device="cpu", kernels=kernels)
        Trainer(net, epochs=2, batch_size=BATCH, data_on=data_on, progress=False).fit(X, y)
        return net.parameters()

    return fit


def estimator() -> dict[str, np.ndarray]:
    X, y = table()
    model = MLPRegressor(hidden_layer_sizes=(24,), solver="sgd", max_iter=1, batch_size=BATCH, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    return {str(k): x for k, x in enumerate((*model.coefs_, *model.intercepts_))}


KINDS: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "native": trainer("native", "device"),
    "streamed": trainer("native", "host"),
    "estimator": estimator,
}


def main(kind: str) -> None:
    library: Any = ctypes.CDLL(None)
    arm, seen = library.memory_faults_arm, library.memory_faults_seen
    arm.argtypes, seen.restype = (ctypes.c_long, ctypes.c_size_t), ctypes.c_long
    fit = KINDS[kind]
    fit()
    arm(0, LEAST)
    right = fit()
    n = seen()
    outcomes: collections.Counter[str] = collections.Counter()
    for k in range(1, n + 1):
        arm(k, LEAST)
        try:
            found = fit()
            arm(0, 0)
            # A smaller micro-batch adds up the same terms in another order.
            same = all(np.allclose(x, right[name], rtol=1e-9, atol=1e-12) for name, x in found.items())
            outcomes["same" if same else f"other weights at {k}"] += 1
        except (BackpropError, MemoryError) as error:
            arm(0, 0)
            outcomes[f"{type(error).__name__}: {error}"] += 1
    again = fit()
    assert all(x.tobytes() == right[name].tobytes() for name, x in again.items()), "nothing is left of the failures"
    print(json.dumps({"kind": kind, "allocations": n, "outcomes": outcomes}))


if __name__ == "__main__":
    for each in KINDS:
        main(each)
