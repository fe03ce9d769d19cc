"""Layers whose activation is parametric: buffers, and their part of the layer loop (``maths.parametric``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._typing import Array
from ..backends.base import Backend
from ..backends.protocol import Kernels
from ..maths.activations import get_activation

if TYPE_CHECKING:
    from .dense_net import DenseNet
    from .memory import Workspace

IDENTITY = get_activation("identity")  # what stands before, and for the layers around


@dataclass
class ParametricBuffers:
    """Buffers of one such layer over m examples, (n, m); those of the backward pass are None for inference.

    Attributes
    ----------
    Z
        What its activation is given, with ``saved`` of the operation that wrote it.
    D, S, dA
        g(Z) - Z, g'(Z), and the derivative by A.
    sums : (n, 1)
        The sums of dA over examples, which ``dense_vjp_input`` writes and nobody needs.
    """

    Z: Array
    saved: Any
    D: Array = None
    S: Array = None
    dA: Array = None
    sums: Array = None


def parametric_buffers(
    backend: Backend, kernels: Kernels, n: int, m: int, dtype: str, train: bool
) -> ParametricBuffers:
    """Buffers of a layer of n units."""

    def examples() -> Array:
        return backend.zeros((m, n), dtype).T if kernels.examples_contiguous else backend.zeros((n, m), dtype)

    found = ParametricBuffers(examples(), kernels.saved(n, n, m, dtype, IDENTITY, None))
    if train:
        found.D, found.S, found.dA, found.sums = examples(), examples(), examples(), backend.zeros((n, 1), dtype)
    return found


def forward(net: DenseNet, ws: Workspace, l: int, dropout: Any, **out: Any) -> None:
    """A[l] from Z; ``out``: A and what is saved."""
    own = ws.parametric[l]
    assert own is not None, "a parametric layer"
    alpha = net.params.tensors[f"alpha{l}"]
    net.kernels.parametric(own.Z, alpha, net.activations[l], dropout, D=own.D, S=own.S, **out)


def backward(net: DenseNet, ws: Workspace, l: int, *, dZ: Array, db: Array, **how: Any) -> None:
    """dZ, db and dalpha from dA."""
    own, alpha = ws.parametric[l], f"alpha{l}"
    assert own is not None, "a parametric layer"
    given = own.dA, own.D, own.S, net.params.tensors[alpha]
    net.kernels.parametric_vjp(*given, dZ=dZ, dalpha=net.params.gradients[alpha], db=db, **how)
