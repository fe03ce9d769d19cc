"""What is computed of the inputs before the first dense layer: each input times a number of its own.

A network without it hands X to the first layer as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._typing import Array
from ..backends.base import Backend
from ..backends.protocol import Kernels
from ..errors import ConfigError
from ..maths.activations import get_activation
from .memory import Extra

if TYPE_CHECKING:
    from .dense_net import DenseNet
    from .memory import Workspace


@dataclass
class InputBuffers:
    """Buffers of the stage over m examples; those of the backward pass are None for inference.

    ``H`` (k, m) is what enters the first dense layer, ``dH`` (k, m) the derivative by it and ``sums`` (k, 1) its sums
    over examples, which ``dense_vjp_input`` writes and nobody needs; ``saved``: as of a layer.
    """

    H: Array
    saved: Any
    dH: Array = None
    sums: Array = None


class InputStage:
    """Settings and operations of the stage for n inputs.

    Parameters
    ----------
    n : int
        Inputs of the network.
    scaling : bool
        Whether each input is multiplied by a number of its own (``maths.scaling``), the tensor ``scale0`` (n, 1).

    Attributes
    ----------
    width : int
        Inputs of the first dense layer.
    """

    def __init__(self, n: int, *, scaling: bool = False) -> None:
        if not isinstance(scaling, bool | np.bool_):
            raise ConfigError(f"input_scaling must be true or false, got {scaling!r}")
        self.n, self.width, self.scaling = n, n, bool(scaling)

    @property
    def there(self) -> bool:
        """Whether anything is computed."""
        return self.scaling

    def extras(self) -> list[Extra]:
        """The stage's tensors; a scale is a weight, which penalties and decay know."""
        return [Extra("scale", 0, (self.width, 1), weight=True)] if self.scaling else []

    @property
    def n_parameters(self) -> int:
        """How many numbers they have."""
        return sum(e.shape[0] * e.shape[1] for e in self.extras())

    def initial(self) -> dict[str, np.ndarray]:
        """Their initial values: at first the stage changes nothing."""
        return {"scale0": np.ones((self.width, 1))} if self.scaling else {}

    def settings(self) -> dict[str, Any]:
        """Arguments of ``DenseNet`` that are not the defaults."""
        return {"input_scaling": True} if self.scaling else {}

    def buffers(self, backend: Backend, kernels: Kernels, m: int, dtype: str, train: bool) -> InputBuffers | None:
        """Buffers for m examples; None where nothing is computed."""
        if not self.there:
            return None
        k = self.width

        def examples() -> Array:
            return backend.zeros((m, k), dtype).T if kernels.examples_contiguous else backend.zeros((k, m), dtype)

        saved = kernels.saved(k, k, m, dtype, get_activation("identity"), None)
        of_training = {"dH": examples(), "sums": backend.zeros((k, 1), dtype)} if train else {}
        return InputBuffers(examples(), saved, **of_training)

    @staticmethod
    def entering(ws: Workspace) -> Array:
        """What enters the first dense layer, after :meth:`forward`."""
        return ws.A[0] if ws.inputs is None else ws.inputs.H

    def forward(self, net: DenseNet, ws: Workspace) -> None:
        """H = s X."""
        if ws.inputs is not None:
            net.kernels.scaling(ws.A[0], net.params.tensors["scale0"], H=ws.inputs.H)

    def backward(self, net: DenseNet, ws: Workspace, W: Array, *, scale: Array | None, accumulate: bool) -> None:
        """dH = W^T dZ[1], and ds; W is that of the first layer, ``scale`` the late 1/D, None for early."""
        if ws.inputs is None:
            return
        p, identity, own = net.params, get_activation("identity"), ws.inputs
        given = W, ws.dZ[1], identity, None, own.H, own.saved
        how: dict[str, Any] = {"scale": scale, "accumulate": False}
        net.kernels.dense_vjp_input(*given, dZ_prev=own.dH, db_prev=own.sums, **how)
        s, ds = p.tensors["scale0"], p.gradients["scale0"]
        net.kernels.scaling_vjp(own.dH, ws.A[0], s, scale=scale, dX=None, ds=ds, accumulate=accumulate)
