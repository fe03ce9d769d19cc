"""What a device is to the rest of the package: a namespace, transfers, buffers, and a set of kernels.

The network loop (``network/``) is written once, against the two classes here. Laws that every kernel set keeps are
stated in :class:`Kernels` and tested for each of them in ``tests/laws``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .._typing import Array, Namespace, Program, Replay
from ..errors import DeviceError

if TYPE_CHECKING:
    from ..maths.activations import Activation
    from ..maths.losses import Loss
    from ..maths.optimizers import Optimizer


class Backend:
    """One device of one array namespace.

    Subclasses override what the namespace's standard functions do not give: ``cuda.device.CudaBackend`` is the only
    one that knows CuPy.

    Attributes
    ----------
    name : str
        Canonical name in the grammar of ``devices.py``: ``"numpy"``, ``"cupy:0"``, ``"torch:cpu"``, ...
    xp : module
        The array namespace.
    device : object or None
        The namespace's own device object, passed to its creation functions; None for its default device.
    reason : str
        One sentence: why this backend was taken (shown by ``backprop-gpu devices``).
    """

    def __init__(self, name: str, xp: Namespace, device: Any = None, reason: str = "") -> None:
        self.name, self.xp, self.device, self.reason = name, xp, device, reason

    def __repr__(self) -> str:
        return f"<Backend {self.name}>"

    def dtype(self, name: str) -> Any:
        """The namespace's dtype object for a NumPy dtype name such as ``"float32"``."""
        return getattr(self.xp, name)

    def asarray(self, host: Any, dtype: str | None = None) -> Array:
        """Copy a host array to this device (C order), converted to ``dtype`` on the host first."""
        host = np.array(host, dtype=dtype, order="C", copy=True)
        return host if self.xp is np else self.xp.asarray(host, device=self.device)

    def to_host(self, x: Array) -> np.ndarray:
        """Copy an array of this device to a new NumPy array."""
        return np.array(x, copy=True)

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        """A new C-ordered buffer of zeros."""
        return self.xp.zeros(tuple(shape), dtype=self.dtype(dtype), device=self.device)

    def owns(self, x: Array) -> bool:
        """Whether ``x`` is an array of this namespace (on any of its devices)."""
        return isinstance(x, np.ndarray) if self.xp is np else not isinstance(x, np.ndarray) and hasattr(x, "shape")

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which the namespace's default device is this one."""
        return contextlib.nullcontext()

    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""

    def kernels(self, kind: str = "auto") -> Kernels:
        """A kernel set: ``"reference"`` (maths on any namespace), on NumPy ``"host"`` (in place) or ``"compiled"``
        (numba, float32); ``"auto"`` is the fastest that is there.

        Raises
        ------
        DeviceError, MissingDependencyError
            If the set was asked for by name and does not run here.
        """
        from .reference import ReferenceKernels

        if kind == "reference" or (kind == "auto" and self.xp is not np):
            return ReferenceKernels(self)
        if self.xp is not np or kind not in ("auto", "host", "compiled"):
            raise DeviceError(f"kernels {kind!r} do not run on {self.name}; use 'auto' or 'reference'")
        from .host.select import host_kernels

        return host_kernels(self, kind)


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout of one layer, and where its Philox counters live (``maths.regularization.dropout_mask``).

    ``quads`` (ceil(n/4), 1) and ``examples`` (1, m) are constant; ``step`` (1,) moves on with every optimizer step;
    ``first`` (1,) is the position of the micro-batch's first example in its batch.
    """

    rate: float
    seed: int
    layer: int
    quads: Array
    examples: Array
    step: Array
    first: Array


class Kernels(Protocol):
    """The operations of a training step. Every one writes into buffers it is given.

    Laws, for every kernel set, dtype and shape (``tests/laws``)
        * equal to the function of ``maths/`` of the same name within the bound derived for its operations;
        * outputs are *overwritten*, except gradients with ``accumulate=True`` and ``value``, which are added to;
        * inputs are not written, and outputs do not alias inputs;
        * the same inputs on the same device give the same bits;
        * ``scale`` arguments are None (one) or a one-element buffer that may change between calls.
    """

    def saved(self, n: int, m: int, dtype: str, activation: Activation, dropout: Dropout | None) -> Any:
        """Buffers in which ``dense`` leaves what its backward needs; owned and read by this kernel set alone."""

    def reveal(self, saved: Any) -> dict[str, Array]:
        """What ``saved`` holds, by name (``Z``, ``mask``), where it exists: for tracing, never for computing."""

    def dense(
        self,
        W: Array,
        A_prev: Array,
        b: Array,
        activation: Activation,
        dropout: Dropout | None,
        *,
        A: Array,
        saved: Any,
    ) -> None:
        """A <- drop(g(W A_prev + b)).  W (n, k), A_prev (k, m), b (n, 1), A (n, m)."""

    def dense_vjp_input(
        self,
        W: Array,
        dZ: Array,
        activation_prev: Activation,
        dropout_prev: Dropout | None,
        A_prev: Array,
        saved_prev: Any,
        *,
        scale: Array | None,
        dZ_prev: Array,
        db_prev: Array,
        accumulate: bool,
    ) -> None:
        """dZ_prev <- (W^T dZ) * drop * g'(Z_prev);  db_prev <- (+) scale * sum over examples of dZ_prev."""

    def dense_vjp_params(self, dZ: Array, A_prev: Array, *, scale: Array | None, dW: Array, accumulate: bool) -> None:
        """dW <- (+) scale * dZ A_prev^T."""

    def output_delta(
        self,
        loss: Loss,
        form: str,
        Z: Array,
        Y: Array,
        weights: Array | None,
        *,
        inverse_denominator: Array,
        early: bool,
        dZ: Array,
        db: Array,
        value: Array,
        accumulate: bool,
    ) -> None:
        """dZ <- w * dL/dZ (times 1/D if ``early``);  db <- (+) row sums of dJ/dZ;  value += (1/D) sum of w * L.

        ``form``: ``"fused"`` (from the logits: the derivative of the reported cost) or ``"literal"`` (dL/dAL, then g').
        """

    def penalty(self, theta: Array, grad: Array, *, l1: Array | None, l2: Array | None, value: Array) -> None:
        """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1, over the weights' part only."""

    def global_norm(self, grad: Array, max_norm: float, *, norm: Array, factor: Array) -> None:
        """norm <- |grad|_2;  factor <- min(1, max_norm / norm)."""

    def update(
        self,
        optimizer: Optimizer,
        theta: Array,
        grad: Array,
        slots: Sequence[Array],
        *,
        scalars: Array,
        factor: Array | None,
        decay: bool,
    ) -> None:
        """theta, slots <- optimizer(theta, factor * grad, slots; scalars), in place; ``decay``: decay weights?"""

    def gather(self, source: Array, order: Array, counters: Array, stride: int, *, out: Array) -> None:
        """out[i] <- source[order[stride k + i]], k = counters[0]: batch k from example-contiguous storage."""

    def advance(self, counters: Array, table: Array, values: Array, *, hyper: Array, value: Array) -> None:
        """On to the next batch: values[k] <- value if k = counters[0] >= 0;  counters += 1;  value <- 0;
        hyper <- table[counters[0]].  ``counters`` (2,) int64 are the batch of this pass and the optimizer step."""

    def capture(self, program: Program) -> Replay:
        """Record a program that touches only fixed buffers; the replay runs it a given number of times."""
