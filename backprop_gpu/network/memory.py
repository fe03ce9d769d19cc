"""Where a network's numbers live: one flat vector for the parameters, and every buffer of a step."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._typing import Array
from ..backends.base import Backend
from ..backends.protocol import Dropout, Kernels
from ..errors import DeviceError
from ..maths.activations import Activation

ALIGNMENT = 256  # bytes; what CUDA's allocator and wide loads like


@contextlib.contextmanager
def must_fit(backend: Backend, sizes: Sequence[int], dtype: str, what: str, vectors: int) -> Iterator[None]:
    """Allocate ``vectors`` vectors of the parameters' size, which no batch size can make smaller.

    Raises
    ------
    DeviceError
        If they take more than is available, or memory runs out.
    """
    n = sum(n * (k + 1) for k, n in itertools.pairwise(sizes))
    needed, there = vectors * n * np.dtype(dtype).itemsize, backend.available()
    shape = " - ".join(map(str, sizes)) if len(sizes) <= 8 else f"{len(sizes) - 1} layers"
    error = DeviceError(
        f"the {what} of {shape} do not fit on {backend.name}: {vectors} x {n:,} numbers in {dtype} are "
        f"{needed / 1e9:.3g} GB; make model.hidden narrower"
    )
    if there is not None and needed > there:
        raise error
    try:
        yield
    except MemoryError:
        raise error from None


class FlatParams:
    """All parameters and their gradients, as views of two vectors that are born flat.

    Layout: W[L] ... W[1], then b[L] ... b[1], each padded with zeros to 256 bytes. The last layer comes first because
    its gradient is ready first; weights come before biases so that penalties and decay, which spare the biases, are one
    call over ``theta[:n_weights]``. Padding stays zero under every optimizer, since its gradient is zero.

    Attributes
    ----------
    theta, grad : (size,)
        The vectors.
    W, b, dW, db : lists
        ``W[l]`` (n_l, n_{l-1}) and ``b[l]`` (n_l, 1) for l = 1..L; index 0 is None.
    """

    def __init__(self, backend: Backend, sizes: Sequence[int], dtype: str) -> None:
        self.sizes, self.dtype = tuple(sizes), dtype
        L = len(sizes) - 1
        unit = max(ALIGNMENT // np.dtype(dtype).itemsize, 1)
        weights = [(l, (sizes[l], sizes[l - 1])) for l in range(L, 0, -1)]
        biases = [(l, (sizes[l], 1)) for l in range(L, 0, -1)]
        offset = 0
        self.spans: list[tuple[str, int, int, tuple[int, int]]] = []
        for letter, group in (("W", weights), ("b", biases)):
            for l, shape in group:
                self.spans.append((f"{letter}{l}", l, offset, shape))
                offset += math.ceil(shape[0] * shape[1] / unit) * unit
            if letter == "W":
                self.n_weights = offset
        self.theta, self.grad = backend.zeros((offset,), dtype), backend.zeros((offset,), dtype)
        self.W, self.b = self._views(backend, self.theta, L)
        self.dW, self.db = self._views(backend, self.grad, L)

    def _views(self, backend: Backend, vector: Array, L: int) -> tuple[list[Array], list[Array]]:
        named: dict[str, list[Array]] = {"W": [None] * (L + 1), "b": [None] * (L + 1)}
        for name, l, offset, shape in self.spans:
            part = vector[offset : offset + shape[0] * shape[1]]
            named[name[0]][l] = backend.xp.reshape(part, shape)
        return named["W"], named["b"]

    def named(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """A host copy of ``theta``, ``grad`` or an optimizer slot as ``{"W1": (n_1, n_0), "b1": (n_1, 1), ...}``."""
        parts = {name: vector[o : o + s[0] * s[1]].reshape(s) for name, _, o, s in self.spans}
        return {name: parts[name] for l in range(1, len(self.sizes)) for name in (f"W{l}", f"b{l}")}

    def flat(self, named: dict[str, np.ndarray]) -> np.ndarray:
        """The inverse of :meth:`named`, with zero padding."""
        vector = np.zeros(self.theta.shape[0], self.dtype)
        for name, _, offset, shape in self.spans:
            vector[offset : offset + shape[0] * shape[1]] = named[name].reshape(-1)
        return vector


class Workspace:
    """Every buffer of a forward and backward pass over m examples.

    ``A[0]`` is set by whoever runs the pass to the (n_0, m) input; ``A[l]``, ``dZ[l]`` are (n_l, m) for l = 1..L.
    ``step`` (1,) is the device's count of optimizer steps and ``first`` the position of the first example in its batch:
    with dropout, which examples these are decides which units survive. ``place`` moves on to another position in the
    same buffers.
    """

    def __init__(
        self,
        backend: Backend,
        kernels: Kernels,
        sizes: Sequence[int],
        activations: Sequence[Activation],
        dropout: Sequence[float],
        m: int,
        dtype: str,
        *,
        seed: int = 0,
        train: bool = True,
        step: Array = None,
        first: int = 0,
    ) -> None:
        L = len(sizes) - 1
        self.m = m
        self._backend, self._places = backend, {first: backend.asarray([first], "int64")}
        first_example = self._places[first]
        examples = backend.asarray(np.arange(m)[None, :], "int64") if train and any(dropout) else None

        def layer_dropout(l: int) -> Dropout | None:
            if not (train and dropout[l]):
                return None
            quads = backend.asarray(np.arange(math.ceil(sizes[l] / 4))[:, None], "int64")
            return Dropout(dropout[l], seed, l, quads, examples, step, first_example)

        self.dropout: list[Dropout | None] = [None, *(layer_dropout(l) for l in range(1, L + 1))]

        def layer(l: int) -> Array:
            if kernels.examples_contiguous:
                return backend.zeros((m, sizes[l]), dtype).T
            return backend.zeros((sizes[l], m), dtype)

        self.A: list[Array] = [None] + [layer(l) for l in range(1, L + 1)]
        self.dZ: list[Array] = [None] + [layer(l) for l in range(1, L + 1)] if train else []
        self.saved: list[Any] = [None] + [
            kernels.saved(sizes[l], m, dtype, activations[l], self.dropout[l]) for l in range(1, L + 1)
        ]

    def place(self, first: int) -> None:
        """The examples that follow begin at position ``first`` of their batch; only dropout cares."""
        if not any(self.dropout):
            return
        if first not in self._places:  # a buffer for each, since a recorded step holds its address
            self._places[first] = self._backend.asarray([first], "int64")
        self.dropout = [d and replace(d, first=self._places[first]) for d in self.dropout]
