"""An ensemble of k networks in one: members that share weights and are trained in one step.

TabM (Gorishniy, Kotelnikov & Babenko, "TabM: advancing tabular deep learning with parameter-efficient ensembling",
2024) over BatchEnsemble (Wen, Tran & Ba 2020). Every member has an output layer of its own. The hidden layers share W;
member j's is diag(s_j) W diag(r_j), where adapters r_j and s_j are its own:

* ``"first"`` (TabM-mini): r_j in the first layer alone, at first random signs;
* ``"all"`` (TabM): r_j, s_j and a bias of its own in each hidden layer; all but the first r_j are 1 at first;
* ``"none"``: no adapters, and W and b of every layer are a member's own: k networks that share nothing but the rows.

A member is therefore an ordinary network with weights of its own, computed by the same loop and the same kernels, one
member after the other: their gradients add up as those of micro-batches do, and the buffers of one serve them all. J is
the mean over members of each one's J, a prediction the mean of their predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._typing import Array
from ..errors import ConfigError
from ..maths.random import host_generator
from .memory import Extra
from .settings import check_choice

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..backends.protocol import Dropout, Kernels
    from .memory import FlatParams, Workspace

ADAPTERS = ("first", "all", "none")
MOST_MEMBERS = 2**15
SIGN_STREAM = 4  # the part of the seed's randomness that the first layer's signs use
DROPOUT_LAYERS = 2**16  # between the numbers of a layer in two members, so that their dropout masks differ


@dataclass(frozen=True)
class Members:
    """How many members a network of these layer sizes has, and which tensors are their own.

    Attributes
    ----------
    count : int
        1: an ordinary network.
    adapters : str
        One of ``ADAPTERS``.
    """

    count: int
    adapters: str
    sizes: tuple[int, ...]

    def own_W(self, l: int) -> bool:
        """Whether W[l] holds one matrix for each member, on top of each other."""
        return self.count > 1 and (self.adapters == "none" or l == len(self.sizes) - 1)

    def own_b(self, l: int) -> bool:
        """Whether b[l] holds one bias for each member."""
        return self.own_W(l) or (self.count > 1 and self.adapters == "all")

    def rows(self, l: int) -> int:
        """Rows of W[l]."""
        return self.sizes[l] * (self.count if self.own_W(l) else 1)

    def biases(self, l: int) -> int:
        """Rows of b[l]."""
        return self.sizes[l] * (self.count if self.own_b(l) else 1)

    @property
    def adapted(self) -> range:
        """Layers whose W the members share through adapters."""
        last = {"first": 1, "all": len(self.sizes) - 2, "none": 0}[self.adapters]
        return range(1, 1 + (last if self.count > 1 else 0))

    def adapter_shapes(self) -> dict[str, list[tuple[int, tuple[int, int]]]]:
        """Layers with the shapes of their adapters: ``R`` (k, inputs) and, with "all", ``S`` (k, outputs)."""
        found = {"R": [(l, (self.count, self.sizes[l - 1])) for l in self.adapted]}
        scaled = self.adapted if self.adapters == "all" else ()
        return found | {"S": [(l, (self.count, self.sizes[l])) for l in scaled]}

    def extras(self) -> list[Extra]:
        """The adapters as tensors of a network; like biases, they are spared by penalties and decay."""
        shapes = self.adapter_shapes().items()
        return [Extra(kind, l, shape, weight=False) for kind, group in shapes for l, shape in reversed(group)]

    def initial_adapters(self, seed: int) -> dict[str, np.ndarray]:
        """Random signs in the first layer's R, 1 in the others."""
        named = {f"{kind}{l}": np.ones(shape) for kind, group in self.adapter_shapes().items() for l, shape in group}
        if "R1" in named:
            named["R1"] = host_generator(seed, SIGN_STREAM).choice([-1.0, 1.0], named["R1"].shape)
        return named

    def dropout(self, drop: Dropout | None, member: int) -> Dropout | None:
        """A layer's dropout for one member: the first has the masks of an ordinary network."""
        return drop if drop is None or not member else replace(drop, layer=drop.layer + DROPOUT_LAYERS * member)

    def settings(self) -> dict[str, Any]:
        """The arguments of ``DenseNet`` that make this; of an ordinary network none, as before there were members."""
        return {"members": self.count, "adapters": self.adapters} if self.count > 1 else {}


def members_of(count: Any, adapters: Any, sizes: tuple[int, ...], batch_norm: Sequence[bool]) -> Members:
    """The settings, checked.

    Raises
    ------
    ConfigError
        For a count below 1 and adapters that are none, and for an ensemble without a hidden layer or with batch_norm.
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= MOST_MEMBERS:
        raise ConfigError(f"members must be a whole number from 1 to {MOST_MEMBERS}, got {count!r}")
    check_choice("adapters", adapters, ADAPTERS)
    if count > 1 and len(sizes) < 3:
        raise ConfigError("members share hidden layers, and this network has none; add one, or set members=1")
    if count > 1 and any(batch_norm):
        raise ConfigError(
            "members cannot share a normalized layer's statistics; leave batch_norm out, or set members=1"
        )
    return Members(int(count), adapters, sizes)


class MemberParams:
    """One member's parameters and gradients, as the layer loop uses them: views, and buffers for adapted weights.

    Attributes
    ----------
    W, b, dW, db : lists
        By layer, from 1. Where a layer is adapted, ``ws`` has the buffers that stand for W and dW.
    """

    def __init__(self, backend: Backend, p: FlatParams, members: Members, number: int) -> None:
        self.members, self.number, self._p = members, number, p
        self.W, self.b, self.dW, self.db = list(p.W), list(p.b), list(p.dW), list(p.db)
        self.gamma, self.dgamma = p.gamma, p.dgamma  # of no ensemble
        if members.count == 1:
            return

        def own(x: Array) -> Array:
            n = x.shape[0] // members.count
            return x[n * number : n * (number + 1), :]

        def vectors(kind: str, named: dict[str, Array]) -> dict[int, Array]:
            layers = [l for l in members.adapted if f"{kind}{l}" in named]
            return {l: backend.xp.reshape(own(named[f"{kind}{l}"]), (-1,)) for l in layers}

        for l in range(1, len(p.W)):
            if members.own_W(l):
                self.W[l], self.dW[l] = own(p.W[l]), own(p.dW[l])
            if members.own_b(l):
                self.b[l], self.db[l] = own(p.b[l]), own(p.db[l])
        self._r, self._dr = vectors("R", p.tensors), vectors("R", p.gradients)
        self._s, self._ds = vectors("S", p.tensors), vectors("S", p.gradients)

    def adapt(self, kernels: Kernels, ws: Workspace) -> None:
        """Compute the member's weights of the adapted layers."""
        for l in self.members.adapted:
            self.W[l] = ws.member_W[l]
            kernels.member_weights(self._p.W[l], self._r[l], self._s.get(l), out=self.W[l])

    def adapt_vjp(self, kernels: Kernels, ws: Workspace, accumulate: bool) -> None:
        """The gradients of shared weights and adapters, from those of the member's weights."""
        for l in self.members.adapted:
            kernels.member_weights_vjp(
                *(ws.member_dW[l], self._p.W[l], self._r[l], self._s.get(l)),
                dW=self._p.dW[l],
                dr=self._dr[l],
                ds=self._ds.get(l),
                accumulate=accumulate or self.number > 0,
                accumulate_own=accumulate,
            )

    def dW_of(self, ws: Workspace, l: int, accumulate: bool) -> dict[str, Any]:
        """Where the layer loop writes the derivative by W[l], and whether it adds to what is there."""
        if l in self.members.adapted:
            return {"dW": ws.member_dW[l], "accumulate": False}
        return {"dW": self.dW[l], "accumulate": accumulate or (self.number > 0 and not self.members.own_W(l))}

    def adds_to_b(self, l: int, accumulate: bool) -> bool:
        """Whether the derivative by b[l] is added to what is there: the earlier members' and micro-batches'."""
        return accumulate or (self.number > 0 and not self.members.own_b(l))


def mean_output(xp: Any, link: Any, logits: Sequence[Array]) -> Array:
    """AL (n_L, m): the mean over members of the link of their logits."""
    total = link.forward(xp, logits[0])
    for Z in logits[1:]:
        total = total + link.forward(xp, Z)
    return total / len(logits) if len(logits) > 1 else total
