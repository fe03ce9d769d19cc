"""Which entries of the flat vector an optimizer moves with which numbers, written apart from ``network``.

``parametrization: ntk`` moves V of W = V / sqrt(k), k inputs: dJ/dV = r dJ/dW with r = 1/sqrt(k), and W moves by r
times what V does. A step that is proportional to the gradient is therefore r^2 times, one that does not depend on its
size r times as long; of the latter, epsilon is 1/r times as large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .layers import Parameters
from .updates import step_numbers

PROPORTIONAL = ("sgd", "momentum", "nesterov")
DECAYING = ("adamw", "lion")


@dataclass(frozen=True)
class Part:
    """Entries from ``start`` to ``end``; ``decay``: weights, which a decaying optimizer shrinks."""

    start: int
    end: int
    decay: bool
    factor: float = 1.0
    r: float = 1.0

    def parameters(self, p: Parameters) -> Parameters:
        """The optimizer's, with epsilon in the coordinates of W."""
        return {**p, "epsilon": p["epsilon"] / self.r} if "epsilon" in p else p

    def numbers(self, optimizer: str, p: Parameters, t: int, learning_rate: float) -> list[float]:
        """``updates.step_numbers``, with the length of this part's step."""
        first, *rest = step_numbers(optimizer, p, t, self.factor * learning_rate)
        return [first * self.r * (self.r if optimizer in PROPORTIONAL else 1.0), *rest]


def parts(
    layout: Mapping[str, tuple[int, tuple[int, int]]],
    size: int,
    n_weights: int,
    optimizer: str,
    factors: Mapping[str, float],
    parametrization: str,
) -> list[Part]:
    """The parts in the order of the vector, equal neighbours joined; ``layout``: offset and shape by name."""
    found: list[Part] = []
    order = sorted(layout, key=lambda name: layout[name][0])
    ends = [layout[name][0] for name in order[1:]] + [size]
    for name, end in zip(order, ends, strict=True):
        start, (_, inputs) = layout[name]
        kind = name.rstrip("0123456789")
        factor = factors[name] if name in factors else factors.get(kind, 1.0)
        r = 1.0 / math.sqrt(inputs) if parametrization == "ntk" and kind == "W" else 1.0
        part = Part(start, end, optimizer in DECAYING and start < n_weights, factor, r)
        if found and (found[-1].decay, found[-1].factor, found[-1].r) == (part.decay, factor, r):
            part = Part(found.pop().start, end, part.decay, factor, r)
        found.append(part)
    return found


def rules(found: list[Part]) -> list[Part]:
    """A part for each set of numbers, in the order in which they first occur."""
    return list({(part.factor, part.r): part for part in reversed(found)}.values())[::-1]
