"""Running one kernel from host arrays to host arrays, with the laws that hold for every call checked at every call.

Outputs that are overwritten start as NaN. Each operation runs twice: the same inputs give the same bits, inputs are as
they were, and spoiling the outputs leaves the inputs alone (so they do not share memory).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from support.backends import Case

from backprop_gpu.backends.protocol import Dropout
from backprop_gpu.maths.activations import Activation
from backprop_gpu.maths.losses import Loss

SHAPES = [(1, 1, 1), (7, 5, 1), (1, 13, 17), (5, 1, 7), (11, 7, 13), (16, 32, 24)]  # (n, k, m)


def same_bits(a: Any, b: Any) -> None:
    """Equal, NaN for NaN, of one dtype."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


class Bench:
    """A kernel set of one case, for one dtype."""

    def __init__(self, case: Case, dtype: str) -> None:
        self.case, self.dtype, self.B = case, dtype, case.bounds(dtype)
        self.kernels: Any = case.kernels()

    def put(self, x: Any) -> Any:
        """Floats in the working dtype, integers as int64, lists of arrays one by one; None stays None."""
        if x is None or isinstance(x, list):
            return None if x is None else [self.put(part) for part in x]
        x = np.asarray(x)
        return self.case.put(x, self.dtype if x.dtype.kind == "f" else "int64")

    def get(self, x: Any) -> Any:
        if x is None or isinstance(x, list):
            return None if x is None else [self.get(part) for part in x]
        return self.case.get(x)

    def blank(self, *shape: int) -> np.ndarray:
        return np.full(shape, np.nan, self.dtype)

    def normal(self, rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(self.dtype)

    def run(self, name: str, inputs: dict[str, Any], outputs: dict[str, Any], **other: Any) -> dict[str, Any]:
        """What the operation wrote into ``outputs``, which hold its initial contents."""
        given = {key: self.put(x) for key, x in inputs.items()}
        before = {key: self.get(x) for key, x in given.items()}
        results = []
        for _ in range(2):
            buffers = {key: self.put(x) for key, x in outputs.items()}
            getattr(self.kernels, name)(**given, **buffers, **other)
            results.append({key: self.get(x) for key, x in buffers.items()})
            for x in buffers.values():
                for part in x if isinstance(x, list) else [x]:
                    part[...] = 7
        for key in outputs:
            _same_parts(results[0][key], results[1][key])
        for key, x in given.items():
            _same_parts(before[key], self.get(x))
        return results[0]

    # -- operations with more than arrays --------------------------------------------------------------------------

    def dropout(self, rate: float, n: int, m: int, *, seed: int = 5, step: int = 3, first: int = 2) -> Dropout | None:
        """The dropout of layer 2 at a step, for examples ``first`` to ``first + m``."""
        if not rate:
            return None
        quads, examples = np.arange((n + 3) // 4)[:, None], np.arange(m)[None, :]
        places = self.put(np.array([step])), self.put(np.array([first]))
        return Dropout(rate, seed, 2, self.put(quads), self.put(examples), *places)

    def forward(
        self, W: np.ndarray, A_prev: np.ndarray, b: np.ndarray, g: Activation, dropout: Dropout | None
    ) -> tuple[Any, Any]:
        """A, on the device, and what the kernel set saved."""
        (n, k), m = W.shape, A_prev.shape[1]
        A, saved = self.put(self.blank(n, m)), self.kernels.saved(n, k, m, self.dtype, g, dropout)
        self.kernels.dense(self.put(W), self.put(A_prev), self.put(b), g, dropout, A=A, saved=saved)
        return A, saved

    def output_delta(
        self,
        loss: Loss,
        form: str,
        Z: np.ndarray,
        Y: np.ndarray,
        w: np.ndarray | None,
        *,
        inverse: float,
        early: bool,
        old: dict[str, np.ndarray] | None = None,
    ) -> dict[str, Any]:
        """dZ, db and value; ``old``: db and value to add to (else db is overwritten and value starts at 0)."""
        start = old or {"db": self.blank(Z.shape[0], 1), "value": np.zeros(1, self.dtype)}
        return self.run(
            "output_delta",
            {"Z": Z, "Y": Y, "weights": w, "inverse_denominator": np.array([inverse])},
            {"dZ": self.blank(*Z.shape), **start},
            loss=loss,
            form=form,
            early=early,
            accumulate=old is not None,
        )


def _same_parts(a: Any, b: Any) -> None:
    if a is None or isinstance(a, list):
        for one, other in zip(a or [], b or [], strict=True):
            same_bits(one, other)
    else:
        same_bits(a, b)
