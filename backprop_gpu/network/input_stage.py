"""What is computed of the inputs before the first dense layer: periodic embeddings, and each input times a number.

The first J of n inputs may have an embedding E of o numbers each (``maths.periodic``), which stands after all inputs;
each of the k = n + J o numbers may be multiplied by a learnable one (``maths.scaling``):

    H = s * [X; E],  E = V cos(2 pi w X[:J] + b) + c.

A network without either hands X to the first layer as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .._typing import Array
from ..backends.base import Backend
from ..backends.protocol import Kernels
from ..errors import ConfigError, did_you_mean
from ..maths.activations import get_activation
from ..maths.registry import is_number
from .memory import Extra

if TYPE_CHECKING:
    from .dense_net import DenseNet
    from .memory import Workspace

# Tensors of an embedding, and whether penalties and decay are about them: they spare the biases b and c.
TENSORS = {"frequency": True, "phase": False, "mixing": True, "offset": False}


@dataclass(frozen=True)
class PeriodicEmbedding:
    """Settings of periodic embeddings; RealMLP's are the defaults.

    Parameters
    ----------
    frequencies : int, default 16
        Waves of each column, h.
    outputs : int, default 3
        What they are mixed to, o; the column itself comes in addition.
    sigma : float, default 0.1
        Standard deviation of the initial frequencies w; the columns are taken to be scaled to about 1.
    columns : int or None, default None
        How many inputs are embedded: the first ones, so that one-hot columns come last; None: all.
    """

    frequencies: int = 16
    outputs: int = 3
    sigma: float = 0.1
    columns: int | None = None

    def __post_init__(self) -> None:
        for name in ("frequencies", "outputs", "columns"):
            value = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 1
            if not whole and not (name == "columns" and value is None):
                raise ConfigError(f"periodic_embedding: {name} must be a whole number from 1, got {value!r}")
        if not (is_number(self.sigma) and 0.0 < self.sigma < math.inf):
            raise ConfigError(f"periodic_embedding: sigma must be positive, got {self.sigma!r}")


def periodic_of(given: Any, n: int) -> PeriodicEmbedding | None:
    """The settings from what ``DenseNet`` is given, with ``columns`` of the ``n`` inputs filled in."""
    if given is None or given is False:
        return None
    if isinstance(given, PeriodicEmbedding):
        given = asdict(given)
    known = [f.name for f in fields(PeriodicEmbedding)]
    if given is not True and not isinstance(given, Mapping):
        raise ConfigError(f"periodic_embedding must be true, or a mapping such as {{'frequencies': 16}}, got {given!r}")
    for key in () if given is True else given:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"periodic_embedding has no setting {key!r}{hint}; it has {', '.join(known)}")
    found = PeriodicEmbedding(**({} if given is True else given))
    columns = n if found.columns is None else int(found.columns)
    if columns > n:
        raise ConfigError(f"periodic_embedding: columns is {columns}, and the network has {n} inputs")
    return PeriodicEmbedding(int(found.frequencies), int(found.outputs), float(found.sigma), columns)


@dataclass
class InputBuffers:
    """Buffers of the stage over m examples; those of the backward pass are None for inference.

    Attributes
    ----------
    H, dH : (k, m)
        What enters the first dense layer, and the derivative by it.
    sums : (k, 1)
        The sums of dH over examples, which ``dense_vjp_input`` writes and nobody needs.
    saved
        As of a layer.
    E, dE : (J o, m)
        The embedding before it is scaled, and the derivative by it; parts of H and dH if nothing is scaled.
    P, Q : (J h, m)
        Cosines, and their slopes.
    ones : (n, 1)
        In the place of a scale, where X is only copied.
    """

    H: Array
    saved: Any
    dH: Array = None
    sums: Array = None
    E: Array = None
    dE: Array = None
    P: Array = None
    Q: Array = None
    ones: Array = None


class InputStage:
    """Settings and operations of the stage for n inputs.

    Parameters
    ----------
    n : int
        Inputs of the network.
    scaling : bool
        Whether there is a scale, the tensor ``scale0`` (k, 1).
    periodic : PeriodicEmbedding, mapping, bool or None
        Whether there are embeddings: ``frequency0``, ``phase0`` (J, h), ``mixing0`` (J o, h), ``offset0`` (J o, 1).

    Attributes
    ----------
    width : int
        k, the inputs of the first dense layer.
    """

    def __init__(self, n: int, *, scaling: bool = False, periodic: Any = None) -> None:
        if not isinstance(scaling, bool | np.bool_):
            raise ConfigError(f"input_scaling must be true or false, got {scaling!r}")
        self.n, self.scaling, self.periodic = n, bool(scaling), periodic_of(periodic, n)
        self.embedded = 0 if self.periodic is None else (self.periodic.columns or n) * self.periodic.outputs
        self.width = n + self.embedded

    @property
    def there(self) -> bool:
        """Whether anything is computed."""
        return self.scaling or self.periodic is not None

    @property
    def words(self) -> str:
        """What is computed, for a table of layers."""
        return " and ".join(["periodic embedding"] * (self.periodic is not None) + ["scaling"] * self.scaling)

    @property
    def calls(self) -> int:
        """How many operations a forward pass has before the first dense layer."""
        return 0 if not self.there else 1 if self.periodic is None else 2 + self.scaling

    def extras(self) -> list[Extra]:
        """The stage's tensors; a scale is a weight, which penalties and decay know."""
        found = [Extra("scale", 0, (self.width, 1), weight=True)] if self.scaling else []
        if self.periodic is not None:
            J, h = self.periodic.columns or self.n, self.periodic.frequencies
            shapes = {"frequency": (J, h), "phase": (J, h), "mixing": (self.embedded, h), "offset": (self.embedded, 1)}
            found += [Extra(kind, 0, shapes[kind], weight) for kind, weight in TENSORS.items()]
        return found

    @property
    def n_parameters(self) -> int:
        """How many numbers they have."""
        return sum(e.shape[0] * e.shape[1] for e in self.extras())

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Their initial values: a scale of 1; w ~ N(0, sigma^2), b ~ U(-pi, pi), V and c ~ U(-1, 1)/sqrt(h)."""
        shapes = {e.kind: e.shape for e in self.extras()}
        found = {"scale0": np.ones(shapes["scale"])} if self.scaling else {}
        if self.periodic is not None:
            found["frequency0"] = self.periodic.sigma * rng.standard_normal(shapes["frequency"])
            found["phase0"] = rng.uniform(-math.pi, math.pi, shapes["phase"])
            for kind in ("mixing", "offset"):
                found[f"{kind}0"] = rng.uniform(-1.0, 1.0, shapes[kind]) / math.sqrt(self.periodic.frequencies)
        return found

    def settings(self) -> dict[str, Any]:
        """Arguments of ``DenseNet`` that are not the defaults."""
        found: dict[str, Any] = {"input_scaling": True} if self.scaling else {}
        return found if self.periodic is None else found | {"periodic_embedding": asdict(self.periodic)}

    def buffers(self, backend: Backend, kernels: Kernels, m: int, dtype: str, train: bool) -> InputBuffers | None:
        """Buffers for m examples; None where nothing is computed."""
        if not self.there:
            return None

        def examples(n: int) -> Array:
            return backend.zeros((m, n), dtype).T if kernels.examples_contiguous else backend.zeros((n, m), dtype)

        found = InputBuffers(examples(self.width), kernels.saved(self.width, self.width, m, dtype, IDENTITY, None))
        if train:
            found.dH, found.sums = examples(self.width), backend.zeros((self.width, 1), dtype)
        if self.periodic is None:
            return found
        waves = (self.periodic.columns or self.n) * self.periodic.frequencies
        found.P, found.Q = examples(waves), examples(waves) if train else None
        if self.scaling:
            found.E, found.dE = examples(self.embedded), examples(self.embedded) if train else None
        else:
            found.ones = backend.asarray(np.ones((self.n, 1)), dtype)
            found.E, found.dE = found.H[self.n :, :], found.dH[self.n :, :] if train else None
        return found

    @staticmethod
    def entering(ws: Workspace) -> Array:
        """What enters the first dense layer, after :meth:`forward`."""
        return ws.A[0] if ws.inputs is None else ws.inputs.H

    def forward(self, net: DenseNet, ws: Workspace) -> None:
        """H from X."""
        X, own, p, n = ws.A[0], ws.inputs, net.params.tensors, self.n
        if own is None:
            return
        if self.periodic is None:
            net.kernels.scaling(X, p["scale0"], H=own.H)
            return
        tensors = (p[f"{kind}0"] for kind in TENSORS)
        net.kernels.periodic(X, *tensors, E=own.E, P=own.P, Q=own.Q)
        net.kernels.scaling(X, p["scale0"][:n, :] if self.scaling else own.ones, H=own.H[:n, :])
        if self.scaling:
            net.kernels.scaling(own.E, p["scale0"][n:, :], H=own.H[n:, :])

    def backward(self, net: DenseNet, ws: Workspace, W: Array, *, scale: Array | None, accumulate: bool) -> None:
        """dH = W^T dZ[1], and the derivatives by the tensors; W is that of the first layer, ``scale`` the late 1/D."""
        X, own, p, n = ws.A[0], ws.inputs, net.params, self.n
        if own is None:
            return
        kernels = net.kernels
        how: dict[str, Any] = {"scale": scale, "accumulate": accumulate}
        given = W, ws.dZ[1], IDENTITY, None, own.H, own.saved
        kernels.dense_vjp_input(*given, scale=scale, dZ_prev=own.dH, db_prev=own.sums, accumulate=False)
        if self.scaling:
            s, ds = p.tensors["scale0"], p.gradients["scale0"]
            kernels.scaling_vjp(own.dH[:n, :], X, s[:n, :], dX=None, ds=ds[:n, :], **how)
        if self.periodic is None:
            return
        if self.scaling:
            kernels.scaling_vjp(own.dH[n:, :], own.E, s[n:, :], dX=own.dE, ds=ds[n:, :], **how)
        dw, db, dV, dc = (p.gradients[f"{kind}0"] for kind in TENSORS)
        V = p.tensors["mixing0"]
        kernels.periodic_vjp(own.dE, X, own.P, own.Q, V, dw=dw, db=db, dV=dV, dc=dc, **how)


IDENTITY = get_activation("identity")
