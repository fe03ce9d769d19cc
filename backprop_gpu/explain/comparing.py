"""Is a gradient right, and if not, what went wrong?

Right is what is within the bound that ``parity`` derives for the operations of the chain. A wrong gradient is compared
with the gradients that known mistakes give, of the same network and data; the first that fits everything is the answer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..gradcheck.diagnosis import Batch, diagnose
from ..parity.bounded_array import Untraceable, lift
from ..parity.claims import arithmetic_of
from ..parity.namespace import BoundedNamespace
from .chain import Tensors
from .diagnosis import Diagnosis, TensorRatio
from .mistakes import Mistake, Setting, described, factors, of_parts, of_units, transposed
from .variants import RIGHT, Given, Slip, gradients, slips

SLACK = 4.0  # bounds: another order of the operations, or another formula for the same number
NEAR = 64.0  # roundings by which a hypothesis may miss where no bound is known
MOST_TERMS = 64  # examples up to which their own gradients are looked for in a wrong one
LOOSE = 1e-2  # of the gradient: with a larger bound nothing can be told


@dataclass(frozen=True)
class Comparison:
    """A gradient beside the right one.

    Attributes
    ----------
    given : Given
    got, want, bound : dict
        ``dW1, db1, ...``; |got - want| may be as large as the bound.
    setting : Setting
        Ranks and micro-batches.
    claim : str
        ``"fp32"`` or ``"fp64"``, ...: the precision of ``got``.
    """

    given: Given
    got: Tensors
    want: Tensors
    bound: Tensors
    setting: Setting
    claim: str

    def right(self, name: str) -> bool:
        """Whether a tensor is the right one, within its bound."""
        gap = np.abs(self.got[name] - self.want[name])
        return bool(np.all(gap <= SLACK * self.bound[name]))

    def is_(self, name: str, hypothesis: np.ndarray, got: np.ndarray | None = None) -> bool:
        """Whether a tensor is what a hypothesis makes of it."""
        got = self.got[name] if got is None else got
        largest, size = (float(np.max(np.abs(x))) for x in (self.want[name], hypothesis))
        # What rounds to nothing in the right gradient does so in a smaller one.
        rounding = min(float(np.max(self.bound[name])), LOOSE * largest)
        return bool(np.max(np.abs(got - hypothesis)) <= self._room(name) * max(size, 1e-300) + rounding)

    def _room(self, name: str) -> float:
        """How far a hypothesis may be off, relative to its largest entry."""
        largest, least = float(np.max(np.abs(self.want[name]))), NEAR * arithmetic_of("numpy", self.claim).u
        return min(max(SLACK * float(np.max(self.bound[name])) / largest, least), LOOSE) if largest else least

    @functools.cached_property
    def wrong(self) -> list[str]:
        """The tensors that are not right, in the order of the backward pass."""
        return [name for name in self.names if not self.right(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """``dWL, dbL, ..., dW1, db1``: the order of the backward pass."""
        return tuple(f"d{kind}{l}" for l in range(self.given.net.L, 0, -1) for kind in "Wb")

    def ratio(self, name: str, got: np.ndarray | None = None, want: np.ndarray | None = None) -> float | None:
        """got / want, where that is one number."""
        got, want = self.got[name] if got is None else got, self.want[name] if want is None else want
        square = float(np.sum(want * want))
        c = float(np.sum(got * want)) / square if square else np.nan
        return c if np.isfinite(c) and self.is_(name, c * want, got) and got.any() else None


def compared(given: Given, got: Tensors, setting: Setting, claim: str) -> Comparison:
    """The gradient beside the right one and its bound."""
    want = gradients(given)
    return Comparison(given, got, want, _bounds(given, claim, want), setting, claim)


def _bounds(given: Given, claim: str, want: Tensors) -> Tensors:
    """How far a gradient of that precision may be from the right one, however dZ[L] is computed."""
    arithmetic = arithmetic_of("numpy", claim)
    on_device = functools.partial(lift, bounds=arithmetic)

    def taken(x: np.ndarray) -> Any:
        return on_device(x.astype(arithmetic.dtype))

    net = replace(given.net, parameters={name: taken(x) for name, x in given.net.parameters.items()})
    weights = None if given.weights is None else taken(given.weights)
    masks = {l: taken(x) for l, x in given.masks.items()}
    traced = replace(given, net=net, X=taken(given.X), Y=taken(given.Y), weights=weights, masks=masks)
    xp = BoundedNamespace(arithmetic)
    stated = {name: np.full_like(x, 1e4 * arithmetic.u * float(np.max(np.abs(x)))) for name, x in want.items()}
    try:
        with np.errstate(all="ignore"):
            literal, fused = (gradients(traced, xp, slip=slip) for slip in (Slip(output="literal"), RIGHT))
    except Untraceable:  # a function of someone's own
        return stated
    bounds = {}
    for name, x in stated.items():
        # Near AL = 0 or 1 the literal division has no bound; where even the other has none, one is stated.
        known = np.where(np.isfinite(fused[name].errors()), fused[name].errors(), x)
        bounds[name] = np.fmax(known, np.where(np.isfinite(literal[name].errors()), literal[name].errors(), 0.0))
    return bounds


def diagnosis_of(c: Comparison, reshaped: Sequence[Mistake] = ()) -> Diagnosis:
    """The verdict on every tensor, and the mistakes; ``reshaped``: those in the shapes that the tensors came in."""
    mistakes, misshapen = list(reshaped), [name for mistake in reshaped for name in mistake.tensors]
    with np.errstate(all="ignore"):
        mistakes += _mistakes(c)
        tensors = tuple(_ratio_of(c, name, misshapen) for name in c.names)
    return Diagnosis(tensors, tuple(mistakes))


def _ratio_of(c: Comparison, name: str, reshaped: Sequence[str]) -> TensorRatio:
    size = float(np.max(np.abs(c.want[name])))
    error = float(np.max(np.abs(c.got[name] - c.want[name]))) / (size or 1.0)
    ok = c.right(name) and name not in reshaped
    return TensorRatio(name, 1.0 if ok else c.ratio(name), error, ok)


def _mistakes(c: Comparison) -> list[Mistake]:
    broken = [name for name in c.wrong if not np.all(np.isfinite(c.got[name]))]
    if broken:
        text = "NaN or infinity: look at the first layer from above that has it, and at log 0 and divisions by 0."
        return [Mistake("not finite", text, "", tuple(broken))]
    if not c.wrong:
        return []
    fitting = [mistake for mistake, ok in _whole(c) if ok]
    if fitting:
        others = (other for other in fitting[1:] if other.name != fitting[0].name)
        names = dict.fromkeys(other.words for other in others if not other.name.startswith("parts "))
        return [replace(fitting[0], also=tuple(names))]
    return _slip_and_factor(c) or _one_by_one(c)


def _whole(c: Comparison) -> Iterator[tuple[Mistake, bool]]:
    """Every mistake that says what the whole gradient would be, and whether this one is that."""
    wrong = tuple(c.wrong)
    plain = gradients(replace(c.given, l2=0.0)) if c.given.l2 else c.want
    for mistake, factor in factors(c.given, c.setting):
        scaled = [{name: factor * g for name, g in c.want.items()}]
        if c.given.l2:  # the penalty's part may be right
            scaled.append({name: factor * g + (c.want[name] - g) for name, g in plain.items()})
        found = any(_fits(c, hypothesis) for hypothesis in scaled)
        yield replace(mistake, tensors=wrong, ratio=factor), found
    if len(c.setting.parts) > 1:
        for mistake, hypothesis in of_parts(c.given, c.setting.parts):
            yield replace(mistake, tensors=wrong), _fits(c, hypothesis)
    for slip in slips(c.given):
        yield replace(described(slip, c.given), tensors=wrong), _fits(c, gradients(c.given, slip=slip))
    for mistake, counted in of_units(c.given):
        yield (
            replace(mistake, tensors=wrong),
            _fits(c, {name: counted.get(name, 1.0) * g for name, g in c.want.items()}),
        )


def _fits(c: Comparison, hypothesis: Tensors) -> bool:
    return all(c.is_(name, h) or (c.right(name) and np.array_equal(h, c.want[name])) for name, h in hypothesis.items())


def _slip_and_factor(c: Comparison) -> list[Mistake]:
    """Two mistakes at once: a slip, and all of it times one number."""
    for slip in slips(c.given):
        hypothesis = gradients(c.given, slip=slip)
        for mistake, factor in factors(c.given, c.setting):
            if _fits(c, {name: factor * h for name, h in hypothesis.items()}):
                both = (described(slip, c.given), replace(mistake, ratio=factor))
                return [replace(each, tensors=tuple(c.wrong)) for each in both]
    return []


def _one_by_one(c: Comparison) -> list[Mistake]:
    """Each wrong tensor by itself; those with one mistake are told of together, and of unknown ones the first layer."""
    found: dict[str, Mistake] = {}
    for name in c.wrong:
        mistake = _of_tensor(c, name)
        known = found.get(mistake.words)
        found[mistake.words] = replace(mistake, tensors=(*(known.tensors if known else ()), name))
    unknown = [mistake for mistake in found.values() if mistake.name == "unknown"]
    return [mistake for mistake in found.values() if mistake not in unknown[1:]]


def _of_tensor(c: Comparison, name: str) -> Mistake:
    got, want = c.got[name], c.want[name]
    if want.shape[0] == want.shape[1] > 1 and c.is_(name, want.T):
        return transposed(name)
    if not got.any():
        return Mistake("zero", "All 0: never written, or multiplied with 0.")
    ratio = c.ratio(name)
    for mistake, factor in factors(c.given, c.setting):
        if ratio is not None and abs(ratio / factor - 1.0) <= max(c._room(name), 1e-9):
            here = "The 1/m is missing here, though others have it." if mistake.name == "1/m missing" else mistake.words
            return replace(mistake, words=here, ratio=factor)
    m, layer = c.given.m, int(name[2:])
    terms = [gradients(c.given.take(slice(i, i + 1)))[name] / m for i in range(m)] if _has_terms(c) else []
    weights_sum = None if c.given.weights is None else c.given.D
    batch = Batch(m, c.given.net.sizes[-1], True, weights_sum)
    cause = diagnose(got, want, batch, c.given.net.parameters[name[1:]], terms, bool(c.given.l2) and name[1] == "W")
    if cause and "constant factor" not in cause:
        words = f"{cause[0].upper()}{cause[1:]}."
        if "on biases" in cause:
            return Mistake("L2 on biases", words, "db = (1/m) · Σᵢ dZ, with no λ")
        return Mistake("other", words)
    if ratio is not None and want.size > 1:
        return Mistake("a factor", f"Everywhere {ratio:.6g} times what it should be, which is no number of this batch.")
    last = layer == c.given.net.L or any(int(n[2:]) > layer for n in c.wrong)
    above = "" if last else f" All of layer {layer + 1} is right."
    text = f"None of the known mistakes. It goes wrong first in layer {layer}: compare its dZ, then A_prev.{above}"
    return Mistake(
        "unknown", text, f"dZ{layer} = dA{layer} ⊙ g′(Z{layer}), dW{layer} = (1/m) · dZ{layer} · A{layer - 1}ᵀ"
    )


def _has_terms(c: Comparison) -> bool:
    return c.given.m <= MOST_TERMS and not c.given.l2 and c.given.weights is None
