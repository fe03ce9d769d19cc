"""A network's memory: one flat vector for the parameters, and every buffer of a step."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._typing import Array
from ..backends.base import Backend
from ..backends.protocol import Dropout, Kernels
from ..errors import DeviceError, ShapeError
from ..maths.activations import Activation, get_activation

if TYPE_CHECKING:
    from .input_stage import InputBuffers
    from .members import Members
    from .parametric import ParametricBuffers

ALIGNMENT = 256  # bytes; what CUDA's allocator and wide loads like
KINDS = ("W", "b", "gamma")  # of a layer's parameters, in the order of a model file
FEW = 8  # numbers; that many take Python less time than a dot product
SERIAL_DOT = 10_000  # numbers; OpenBLAS takes threads for the dot product of more


@contextlib.contextmanager
def allocate_or_raise(backend: Backend, sizes: Sequence[int], dtype: str, what: str, vectors: int) -> Iterator[None]:
    """Allocate ``vectors`` parameter-sized vectors; a smaller batch cannot help if they do not fit.

    Raises
    ------
    DeviceError
        If they take more than is available, or memory runs out.
    """
    needed = vectors * _count(sizes) * np.dtype(dtype).itemsize
    if not backend.has_room(needed):
        raise _too_large(backend, sizes, dtype, what, vectors, needed)
    try:
        yield
    except MemoryError:
        raise _too_large(backend, sizes, dtype, what, vectors, needed) from None


def _too_large(backend: Backend, sizes: Sequence[int], dtype: str, what: str, vectors: int, needed: int) -> DeviceError:
    shape, n = " - ".join(map(str, sizes)) if len(sizes) <= 8 else f"{len(sizes) - 1} layers", _count(sizes)
    return DeviceError(
        f"the {what} of {shape} do not fit on {backend.name}: {vectors} x {n:,} numbers in {dtype} are "
        f"{needed / 1e9:.3g} GB; make model.hidden narrower"
    )


def _count(sizes: Sequence[int]) -> int:
    """Weights and biases."""
    return sum(n * (k + 1) for k, n in itertools.pairwise(sizes))


class Extra(NamedTuple):
    """A tensor that not every network has: ``scale0`` is of the ``kind`` "scale" and ``layer`` 0.

    ``weight``: penalties and decay are about it, as about W; they spare the others, as they do b.
    """

    kind: str
    layer: int
    shape: tuple[int, int]
    weight: bool

    @property
    def name(self) -> str:
        """As in a model file."""
        return f"{self.kind}{self.layer}"


def layer_of(name: str) -> int:
    """The number at the end of a parameter's name."""
    return int(name[len(kind_of(name)) :])


def kind_of(name: str) -> str:
    """A parameter's name without the number: ``"W"`` of ``"W1"``."""
    return name.rstrip("0123456789")


class FlatParams:
    """All parameters and their gradients, as views of two flat vectors.

    Layout: W[L] ... W[1], then extra weights, then b[L] ... b[1], then other extra tensors, then gamma of the
    normalized layers, last first, each padded with zeros to 256 bytes. The last layer comes first because its
    gradient is ready first; weights come before biases so that penalties and decay, which spare the biases, are one
    call over ``theta[:n_weights]``. Padding stays zero under every optimizer, since its gradient is zero.

    Attributes
    ----------
    theta, grad : (size,)
        The vectors.
    W, b, dW, db : lists
        ``W[l]`` (n_l, n_{l-1}) and ``b[l]`` (n_l, 1) for l = 1..L; index 0 is None. What members have of their own is
        there once for each, on top of each other (``members.Members``).
    gamma, dgamma : lists
        (n_l, 1) where layer l is normalized (its beta is ``b[l]``), else None.
    tensors, gradients : dict
        The views of ``theta`` and of ``grad`` by name: ``W1``, ``b1``, ``gamma1``.
    """

    def __init__(
        self,
        backend: Backend,
        sizes: Sequence[int],
        dtype: str,
        normalized: Sequence[int] = (),
        extras: Sequence[Extra] = (),
        members: Members | None = None,
    ) -> None:
        self.sizes, self.dtype = tuple(sizes), dtype
        L = len(sizes) - 1
        unit = max(ALIGNMENT // np.dtype(dtype).itemsize, 1)
        weights = [(l, (members.rows(l) if members else sizes[l], sizes[l - 1])) for l in range(L, 0, -1)]
        biases = [(l, (members.biases(l) if members else sizes[l], 1)) for l in range(L, 0, -1)]
        gammas = [(l, (sizes[l], 1)) for l in sorted(normalized, reverse=True)]
        more = {
            weight: [(e.kind, [(e.layer, e.shape)]) for e in extras if e.weight == weight] for weight in (True, False)
        }
        offset = 0
        self.spans: list[tuple[str, int, int, tuple[int, int]]] = []
        for kind, group in (("W", weights), *more[True], ("b", biases), *more[False], ("gamma", gammas)):
            if kind == "b":
                self.n_weights = offset
            for l, shape in group:
                self.spans.append((f"{kind}{l}", l, offset, shape))
                offset += math.ceil(shape[0] * shape[1] / unit) * unit
        self.theta, self.grad = backend.zeros((offset,), dtype), backend.zeros((offset,), dtype)
        self.tensors, self.gradients = self._views(backend, self.theta), self._views(backend, self.grad)
        self.W, self.b, self.gamma = ([self.tensors.get(f"{kind}{l}") for l in range(L + 1)] for kind in KINDS)
        self.dW, self.db, self.dgamma = ([self.gradients.get(f"{kind}{l}") for l in range(L + 1)] for kind in KINDS)

    def _views(self, backend: Backend, vector: Array) -> dict[str, Array]:
        return {name: backend.xp.reshape(vector[o : o + s[0] * s[1]], s) for name, _, o, s in self.spans}

    def named(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """A host copy of ``theta`` or a vector like it, as ``{"W1": (n_1, n_0), "b1": (n_1, 1), ...}``."""
        order = {kind: i for i, kind in enumerate(KINDS)}
        spans = sorted(self.spans, key=lambda span: (span[1], order.get(kind_of(span[0]), len(order))))
        return {name: vector[o : o + s[0] * s[1]].reshape(s) for name, _, o, s in spans}

    def flat(self, named: dict[str, np.ndarray]) -> np.ndarray:
        """The inverse of :meth:`named`, with zero padding.

        Raises
        ------
        ShapeError
            If a tensor is missing or has another shape.
        """
        vector = np.zeros(self.theta.shape[0], self.dtype)
        for name, _, offset, shape in self.spans:
            if name not in named or named[name].shape != shape:
                got = named[name].shape if name in named else "nothing"
                raise ShapeError(f"{name} must be {shape}, got {got}")
            vector[offset : offset + shape[0] * shape[1]] = named[name].reshape(-1)
        return vector


class Snapshot:
    """A copy of some buffers on their device, from which they can be restored."""

    def __init__(self, backend: Backend, buffers: Sequence[Array], dtype: str) -> None:
        self._buffers, self._copies = buffers, [backend.zeros(x.shape, dtype) for x in buffers]

    def take(self) -> None:
        """Copy the buffers."""
        for copy, x in zip(self._copies, self._buffers, strict=True):
            copy[...] = x

    def restore(self) -> None:
        """Restore the buffers from the copy."""
        for copy, x in zip(self._copies, self._buffers, strict=True):
            x[...] = copy


def state_of(net: Any) -> list[Array]:
    """The buffers of a network's parameters: theta, then the running statistics of normalized layers."""
    return [net.params.theta, *net.mean.values(), *net.variance.values()]


def surely_finite(x: np.ndarray) -> bool:
    """Whether all numbers of a vector are finite, by one sum: also False if the sum overflows, of which NumPy may warn.

    For a long dot product BLAS would wake threads, which then spin on the cores that the next epoch needs.
    """
    if x.size <= FEW:
        return all(map(math.isfinite, x.tolist()))
    return math.isfinite(x.dot(x) if x.size <= SERIAL_DOT else x.sum())


def all_finite(net: Any) -> bool:
    """Whether all parameters of a network, running statistics included, are finite numbers."""
    with np.errstate(all="ignore"):
        return buffers_finite(net.backend, state_of(net))


def buffers_finite(backend: Backend, buffers: Sequence[Array]) -> bool:
    """Whether all numbers of some buffers of a device are finite, with one transfer to the host.

    NumPy may warn of an overflow, as in :func:`surely_finite`.
    """
    if isinstance(buffers[0], np.ndarray):
        return all(surely_finite(x.reshape(-1)) or bool(np.isfinite(x).all()) for x in buffers)
    xp = backend.xp
    with backend.activate():
        return bool(backend.to_host(xp.all(xp.stack([xp.all(xp.isfinite(x)) for x in buffers]))))


class Normalized:
    """Buffers of one normalized layer over m examples.

    ``Z`` (n, m) is its affine part and ``saved`` what that leaves. For training, ``X`` (n, m) and ``inverse_std``
    (n, 1) are what the backward pass needs and ``dU`` (n, m) is the derivative by gamma X + beta; None for inference.
    """

    def __init__(self, backend: Backend, kernels: Kernels, n: int, m: int, dtype: str, train: bool) -> None:
        self.Z = backend.zeros((n, m), dtype)
        self.saved = kernels.saved(n, n, m, dtype, get_activation("identity"), None)
        self.X, self.dU = (backend.zeros((n, m), dtype) if train else None for _ in range(2))
        self.inverse_std = backend.zeros((n, 1), dtype) if train else None


class Workspace:
    """Every buffer of a forward and backward pass over m examples.

    The caller sets ``A[0]`` to the (n_0, m) input; ``A[l]``, ``dZ[l]`` are (n_l, m) for l = 1..L. ``step`` (1,) is the
    device's count of optimizer steps and ``first`` the position of the first example in its batch: both are part of the
    counters of dropout's random numbers. ``set_offset`` changes ``first``. ``weights`` (1, m), set like ``A[0]``,
    weight the examples in the statistics of batch normalization. ``norm[l]`` is None if layer l is not normalized,
    ``inputs`` if nothing is computed of the inputs before the first dense layer. ``logits`` has Z[L] (n_L, m) of each
    member; in training, one buffer for all. ``member_W[l]`` and ``member_dW[l]`` (n_l, n_{l-1}) stand for an adapted
    layer's weights (``network.members``).
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
        normalized: Sequence[int] = (),
        members: Members | None = None,
    ) -> None:
        L, count = len(sizes) - 1, 1 if members is None else members.count
        self.m = m
        adapted = {l: (sizes[l], sizes[l - 1]) for l in (() if members is None else members.adapted)}
        self.member_W = {l: backend.zeros(shape, dtype) for l, shape in adapted.items()}
        self.member_dW = {l: backend.zeros(shape, dtype) for l, shape in adapted.items()} if train else {}
        self.weights: Array | None = None
        self.inputs: InputBuffers | None = None
        self.parametric: list[ParametricBuffers | None] = [None] * (L + 1)
        self.norm = [
            Normalized(backend, kernels, sizes[l], m, dtype, train) if l in normalized else None for l in range(L + 1)
        ]
        self._backend, self._offsets = backend, {first: backend.asarray([first], "int64")}
        first_example = self._offsets[first]
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
        self.logits = [self.A[L]] * count if train else [self.A[L], *(layer(L) for _ in range(1, count))]
        self.dZ: list[Array] = [None] + [layer(l) for l in range(1, L + 1)] if train else []
        self.saved: list[Any] = [None] + [
            kernels.saved(sizes[l], sizes[l - 1], m, dtype, activations[l], self.dropout[l]) for l in range(1, L + 1)
        ]

    def set_offset(self, first: int) -> None:
        """Set the position in its batch of the first example; it matters for dropout only."""
        if not any(self.dropout):
            return
        if first not in self._offsets:  # one buffer per offset, since a recorded step holds its address
            self._offsets[first] = self._backend.asarray([first], "int64")
        self.dropout = [d and replace(d, first=self._offsets[first]) for d in self.dropout]


class Workspaces:
    """The buffers of a step by number of examples: reserved ones, and of the others those that were used last.

    Attributes
    ----------
    made : dict
        The one used last is last.
    reserved : set of int
        Numbers of examples whose buffers stay, since a recorded program writes into them.
    """

    UNRESERVED = 4  # the most that are kept in addition

    def __init__(self) -> None:
        self.made: dict[int, Workspace] = {}
        self.reserved: set[int] = set()

    def of(self, m: int, make: Callable[[], Workspace]) -> Workspace:
        """The buffers for m examples, made if they are not there."""
        found = self.made.pop(m, None)
        if found is None:
            unreserved = [k for k in self.made if k not in self.reserved]
            if len(unreserved) >= self.UNRESERVED:
                del self.made[unreserved[0]]
            found = make()
        self.made[m] = found
        return found
