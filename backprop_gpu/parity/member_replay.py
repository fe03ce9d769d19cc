"""Replaying what members of an ensemble share: the weights that each has in a step, and the derivatives by the shared.

Written apart from ``network.members``: which tensors are a member's own is stated once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .oracle import members
from .oracle.bounds import Bounded
from .oracle.products import Recorded

if TYPE_CHECKING:
    from .step_replay import StepReplay
    from .trace import TraceSpec

LAYERS_APART = 2**16  # the number of a layer in dropout's counters, from one member to the next


def adapted(spec: TraceSpec) -> range:
    """Layers whose W the members share through adapters."""
    if spec.members == 1 or spec.adapters == "none":
        return range(0)
    return range(1, 2 if spec.adapters == "first" else len(spec.sizes) - 1)


def own(spec: TraceSpec, kind: str, l: int) -> bool:
    """Whether each member has a W (kind "W") or b of its own in a layer."""
    alone = l == len(spec.sizes) - 1 or spec.adapters == "none"
    return spec.members > 1 and (alone or (kind == "b" and spec.adapters == "all"))


class MemberReplay:
    """One member's parameters and derivatives as the replay of a step takes them; an ordinary network is one.

    Parameters
    ----------
    run : StepReplay
    number : int
        Which member.
    """

    def __init__(self, run: StepReplay, number: int) -> None:
        self.run, self.number = run, number
        self._weights, self._dW = dict[int, Recorded](), dict[int, np.ndarray]()  # of adapted layers

    def layer_of_masks(self, l: int) -> int:
        """The number of a layer in dropout's counters."""
        return l + LAYERS_APART * self.number

    # -- parameters ---------------------------------------------------------------------------------------------------

    def adapt(self) -> None:
        """Check the weights of the adapted layers."""
        run = self.run
        for l in adapted(run.spec):
            out = Recorded(run.calls.next("member_weights").wrote["out"])
            wanted = members.weights(run.theta[f"W{l}"].given(run.B), *self._adapters(l))
            inputs = [name for name in (f"W{l}", f"R{l}", f"S{l}") if name in run.theta]
            run.comparator.compare("member_weights", f"member's W{l}", out.x, wanted, inputs=inputs)
            self._weights[l] = out

    def W(self, l: int) -> Recorded:
        """The member's weights, those of an adapted layer as they were recorded."""
        if l in self._weights:
            return self._weights[l]
        W = self.run.theta[f"W{l}"]
        return Recorded(W.x[self._rows("W", l)]) if own(self.run.spec, "W", l) else W

    def b(self, l: int) -> np.ndarray:
        """The member's bias."""
        return self.run.theta[f"b{l}"].x[self._rows("b", l)]

    def _rows(self, kind: str, l: int) -> slice:
        """The member's rows of W, b, R or S; all where they are shared."""
        n = 1 if kind in "RS" else self.run.spec.sizes[l]
        alone = kind in "RS" or own(self.run.spec, kind, l)
        return slice(n * self.number, n * (self.number + 1)) if alone else slice(None)

    def _adapters(self, l: int) -> tuple[Bounded, Bounded | None]:
        """r (1, k) and s (n, 1) or None."""
        r, s = (self.run.theta.get(f"{kind}{l}") for kind in "RS")
        assert r is not None, "an adapted layer"
        return self.run.B.given(r.x[self._rows("R", l)]), None if s is None else self.run.B.given(
            s.x[self._rows("S", l)].T
        )

    # -- derivatives --------------------------------------------------------------------------------------------------

    def old(self, kind: str, l: int) -> np.ndarray | None:
        """The derivative by W, b, R or S so far, by the member's part or the shared tensor; None at first."""
        if kind == "W" and l in adapted(self.run.spec):
            return None  # each time by this member's weights alone
        return self._so_far(kind, l)

    def _so_far(self, kind: str, l: int) -> np.ndarray | None:
        name, rows = f"{kind}{l}", self._rows(kind, l)
        # A copy, since a comparison is looked at again for its cause, when more has been added.
        return self.run.part_of_gradient(name)[rows].copy() if (name, rows.start) in self.run.begun else None

    def keep(self, kind: str, l: int, written: np.ndarray) -> None:
        """Note the derivative as recorded."""
        if kind == "W" and l in adapted(self.run.spec):
            self._dW[l] = written
        else:
            self._keep(kind, l, written)

    def _keep(self, kind: str, l: int, written: np.ndarray) -> None:
        name, rows = f"{kind}{l}", self._rows(kind, l)
        self.run.part_of_gradient(name)[rows] = written
        self.run.begun.add((name, rows.start))

    def derivatives(self) -> None:
        """Check the derivatives by shared weights and adapters, from those by the member's weights."""
        run, B = self.run, self.run.B
        for l in adapted(run.spec):
            wrote, G = run.calls.next("member_weights_vjp").wrote, B.given(self._dW[l])
            found = members.vjp(G, run.theta[f"W{l}"].given(B), *self._adapters(l))
            for kind, key, want in zip("WRS", ("dW", "dr", "ds"), found, strict=True):
                if want is None:
                    continue
                old, got = self._so_far(kind, l), wrote[key].reshape(want.shape)
                if kind == "S":  # a column, and a row of S
                    old = None if old is None else old.T
                want = want if old is None else B.given(old) + want
                inputs = [f"member's dW{l}", f"W{l}", f"R{l}"]
                run.comparator.compare("member_weights_vjp", f"d{kind}{l}", got, want, k=max(G.shape), inputs=inputs)
                self._keep(kind, l, got.T if kind == "S" else got)
