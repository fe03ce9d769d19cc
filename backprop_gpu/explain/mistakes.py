"""Mistakes in words that a student understands, with the formula that is meant, and the numbers that give them away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .chain import Tensors
from .variants import EVERY, Given, Slip, gradients, without_penalty


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong.

    Attributes
    ----------
    name : str
        ``"1/m missing"``, ``"g' missing"``, ``"transpose"``, ...: the same for the same mistake, whatever the network.
    words : str
        What happened, in a sentence.
    formula : str
        What is meant, or empty.
    tensors : tuple of str
        The gradients that it explains: ``("dW1", "db1")``.
    ratio : float or None
        Yours divided by the right one, where that is one number.
    also : tuple of str
        Other mistakes that look exactly the same with these numbers.
    """

    name: str
    words: str
    formula: str = ""
    tensors: tuple[str, ...] = ()
    ratio: float | None = None
    also: tuple[str, ...] = ()


DW = "dW = (1/m) · dZ · A_prevᵀ, db = (1/m) · Σᵢ dZ, if dAL = dL/dAL has no 1/m"


@dataclass(frozen=True)
class Setting:
    """What the reader said of how the gradient was put together: ``ranks``, and the sizes of the micro-batches."""

    ranks: int = 1
    parts: tuple[int, ...] = ()


def factors(given: Given, setting: Setting) -> Iterator[tuple[Mistake, float]]:
    """Mistakes that multiply a gradient by one number, the likeliest first."""
    m, D, n, K, R = given.m, given.D, given.net.sizes[-1], len(setting.parts), setting.ranks
    weighted = given.weights is not None
    averaged = given.net.loss.labels == "values"
    over = "Σw" if weighted else "m"
    if R > 1:
        means = f"dW = (1/{R}) Σ_ranks dW_rank, where each rank takes the mean over its own examples"
        text = f"The gradients of {R} ranks were added up and not averaged."
        yield Mistake("ranks added", text, means), float(R)
        yield Mistake("ranks divided twice", f"The gradient was divided by the {R} ranks once too often.", means), 1 / R
    if K > 1 and len(set(setting.parts)) == 1:
        means = f"dW = Σ_parts (1/m) Σᵢ dLᵢ/dW with the m of the whole batch, or the mean of the {K} means"
        text = f"The mean gradients of {K} micro-batches were added up: each was divided by its own size, not by m."
        yield Mistake("micro-batches added", text, means), float(K)
        text = f"The gradient was divided by the {K} micro-batches once too often."
        yield Mistake("micro-batches divided twice", text, means), 1 / K
    if D != 1.0:
        text = f"The 1/{over} is nowhere: neither in dAL nor in dW and db."
        yield Mistake("1/m missing", text, DW.replace("1/m", f"1/{over}")), D
        text = f"The 1/{over} is there twice: in dAL and again in dW and db."
        yield (
            Mistake("1/m twice", text, f"once: either dAL = (1/{over}) · dL/dAL, or dW = (1/{over}) · dZ · A_prevᵀ"),
            1 / D,
        )
    if weighted:
        meant = "J = Σ wᵢLᵢ / Σ wᵢ"
        yield Mistake("sum of weights", "It was divided by m, not by the sum of the example weights.", meant), D / m
        yield Mistake("sum of weights twice", "It was divided by m and by Σw.", meant), 1 / m
    yield Mistake("sign", "The sign is turned: this walks uphill.", _sign(given)), -1.0
    if n > 1:
        text = f"Summed over the {n} outputs, where the cost averages over them."
        meant = f"dAL = (AL - Y)/n with n = {n} outputs, as L = 1/(2n) Σₖ (AL - Y)²"
        summed = "L is the sum over the outputs: no 1/n in dAL"
        if averaged:
            yield Mistake("n_out missing", text, meant), float(n)
            yield Mistake("n_out twice", f"Divided by the {n} outputs twice.", meant), 1 / n
        else:
            yield Mistake("n_out", f"Averaged over the {n} outputs, where the cost adds them up.", summed), 1 / n
    half = "L = 1/(2n) Σₖ (AL - Y)², whose derivative is (AL - Y)/n: the ½ takes the 2 away"
    text = (
        "A factor 2: the square was written without its ½" if averaged else "A factor 2: something was added up twice"
    )
    yield (
        Mistake("factor 2", f"{text} (or two ranks, or two micro-batches, were added up).", half if averaged else ""),
        2.0,
    )
    if n > 1 and not averaged:
        yield (
            Mistake("n_out multiplied", f"Multiplied by the {n} outputs.", "L is the sum over them: no n in dAL"),
            float(n),
        )
    yield Mistake("factor 1/2", "Half of what it should be: a ½ too many.", half if averaged else ""), 0.5
    yield from _counts(m, D, over)


def _sign(given: Given) -> str:
    fused = {"binary_cross_entropy", "categorical_cross_entropy"} & {given.net.loss.name}
    return "dZL = AL - Y, not Y - AL" if fused else "dAL = (AL - Y)/n, not (Y - AL)/n"


def _counts(m: int, D: float, over: str) -> Iterator[tuple[Mistake, float]]:
    """Numbers that are less likely: other powers of m, m - 1, and small counts of ranks or parts that nobody named."""
    yield Mistake("1/m three times", f"The 1/{over} is there three times.", "once"), 1 / D**2
    if m > 1:
        yield Mistake("m - 1", "Divided by m - 1, as a variance is, not by m.", DW), m / (m - 1)
        yield Mistake("m + 1", "Divided by m + 1: one example was counted that is not there.", DW), m / (m + 1)
    for count in (3, 4, 5, 6, 7, 8, 16, 32, 64):
        parts = f"{count} ranks, or {count} micro-batches"
        yield Mistake("parts added", f"Their means were added up, {parts} perhaps.", "average them"), float(count)
        yield Mistake("parts divided twice", f"It was divided once too often, by {parts} perhaps."), 1 / count


# Of each slip: its name, what happened, and what is meant; the parts in braces are filled in by :func:`described`.
SLIPS: dict[tuple[str, str | bool], tuple[str, str, str]] = {
    ("again", True): (
        "1/m in every layer",
        "dA was divided by {D} again in every layer on the way down.",
        "dA_prev = Wᵀ · dZ, with no 1/m: columns do not meet there",
    ),
    ("slope", "missing"): (
        "g' missing",
        "The derivative of the activation is missing {where}: dZ{i} = dA{i}.",
        "dZ{i} = dA{i} ⊙ g′(Z{i})",
    ),
    ("slope", "of A"): (
        "g' of A",
        "The derivative of {g} was taken at A{i}, not at Z{i}, {where}.",
        "dZ{i} = dA{i} ⊙ g′(Z{i})",
    ),
    ("output", "missing"): (
        "g' missing",
        "The derivative of the last activation ({link}) is missing: dZ{L} = dAL.",
        "dZ{L} = dAL ⊙ g′(Z{L})",
    ),
    ("output", "twice"): (
        "g' twice",
        "The derivative of {link} is there twice: AL - Y is dL/dZ{L} already.",
        "dZ{L} = AL - Y, or dZ{L} = dAL ⊙ g′(Z{L})",
    ),
    ("output", "literal"): (
        "saturated",
        "Some AL is 0 or 1 to the last digit: there dAL ⊙ g′(Z{L}) is a large number times 0.",
        "dZ{L} = AL - Y, which needs no division",
    ),
    ("A", "own"): (
        "wrong A",
        "dW{i} was made with A{i} {where}, the layer's own activation.",
        "dW{i} = (1/{D}) · dZ{i} · A{before}ᵀ",
    ),
    ("A", "Z"): (
        "wrong A",
        "dW{i} was made with Z{before} {where}: the numbers before the activation.",
        "dW{i} = (1/{D}) · dZ{i} · A{before}ᵀ",
    ),
    ("A", "X"): (
        "wrong A",
        "dW{i} was made with X {where}, not with the activations of the layer before.",
        "dW{i} = (1/{D}) · dZ{i} · A{before}ᵀ",
    ),
    ("W", "transposed"): (
        "W not transposed",
        "dA{before} was made with W{i}, not with its transpose, {where}.",
        "dA{before} = W{i}ᵀ · dZ{i}",
    ),
    ("weights", "missing"): (
        "weights missing",
        "The example weights are in the denominator, but not in the losses that are added up.",
        "dAL = w ⊙ dL/dAL",
    ),
    ("weights", "unweighted"): (
        "weights missing",
        "The example weights were left out: this is the mean over all examples alike.",
        "J = Σ wᵢLᵢ / Σ wᵢ",
    ),
    ("masks", "missing"): (
        "dropout mask missing",
        "The dropout mask was left out of the backward pass {where}.",
        "dA{i} = dA{i} ⊙ D{i} / keep_prob",
    ),
    ("masks", "not scaled"): (
        "dropout scale",
        "The backward pass does not divide by keep_prob = {keep} {where}.",
        "dA{i} = dA{i} ⊙ D{i} / keep_prob",
    ),
    ("masks", "never scaled"): (
        "dropout scale",
        "Neither pass divides the units that dropout kept by keep_prob = {keep}.",
        "A{i} = A{i} ⊙ D{i} / keep_prob, and dA{i} likewise",
    ),
    ("penalty", "missing"): (
        "L2 missing",
        "The L2 penalty is in the cost, but not in dW.",
        "dW{i} = ... + (λ/{D}) W{i}",
    ),
    ("penalty", "twice"): (
        "L2 twice",
        "The L2 penalty counts twice in dW: its ½ takes the 2 of the square away.",
        "λ/(2{D}) ΣW² gives (λ/{D}) W",
    ),
    ("penalty", "not over m"): (
        "L2 not over m",
        "The L2 penalty's part of dW was not divided by {D}.",
        "dW{i} = ... + (λ/{D}) W{i}",
    ),
    ("penalty", "on biases"): (
        "L2 on biases",
        "The L2 penalty was put on the biases too.",
        "db = (1/m) · Σᵢ dZ, with no λ",
    ),
    ("penalty", "subtracted"): ("L2 sign", "The L2 penalty's part was subtracted.", "dW{i} = ... + (λ/{D}) W{i}"),
}


def described(slip: Slip, given: Given) -> Mistake:
    """A slip in words."""
    key = next((name, kind) for name, kind in vars(slip).items() if name != "layer" and kind not in ("right", False))
    l = slip.layer
    known = {
        "i": "[l]" if l == EVERY else str(l),
        "before": "[l-1]" if l == EVERY else str(l - 1),
        "where": "in every layer" if l == EVERY else f"in layer {l}",
        "g": given.net.activations[(l or 1) - 1].name,
        "link": given.net.activations[-1].name,
        "D": "m" if given.weights is None else "Σw",
        "keep": f"{given.keep_prob:g}",
        "L": str(given.net.L),
    }
    name, words, formula = SLIPS[key]
    return Mistake(name, words.format(**known), formula.format(**known))


def transposed(name: str) -> Mistake:
    """A dW whose axes are exchanged."""
    l = int(name[2:])
    text = f"{name} is transposed: it must have the shape of {name[1:]}, one row per unit of layer {l}."
    return Mistake("transpose", text, f"dW{l} = (1/m) · dZ{l} · A{l - 1}ᵀ", (name,))


def flattened(name: str, n: int) -> Mistake:
    """A db that lost its second axis."""
    b, l = name[1:], name[2:]
    text = f"{name} has shape ({n},), not ({n}, 1): {b} - α · {name} is then ({n}, {n}), by NumPy's broadcasting."
    return Mistake("axis lost", text, f"{name} = (1/m) · np.sum(dZ{l}, axis=1, keepdims=True)", (name,))


def of_units(given: Given) -> Iterator[tuple[Mistake, dict[str, float]]]:
    """Sums that were divided by the number of a layer's units, taken for m: by what factor each tensor is wrong."""
    if given.weights is not None or given.l2:
        return
    sizes, m = given.net.sizes, given.m
    for kinds in ("Wb", "W", "b"):
        for below, shape in ((1, "A_prev.shape[0]"), (0, "dZ.shape[0]")):
            counted = {f"d{kind}{l}": m / sizes[l - below] for l in range(1, given.net.L + 1) for kind in kinds}
            what = " and ".join(f"d{kind}" for kind in kinds)
            text = f"{what} divided by the units of a layer, {shape}, not by the m = {m} examples: these are columns."
            meant = "m = A_prev.shape[1], the number of columns"
            yield Mistake("units for m", text, meant), counted


def of_parts(given: Given, sizes: Sequence[int]) -> Iterator[tuple[Mistake, Tensors]]:
    """Gradients from micro-batches of these sizes, put together wrongly."""
    ends = np.cumsum(sizes)
    parts = [given.take(slice(int(end - n), int(end))) for end, n in zip(ends, sizes, strict=True)]
    means = [without_penalty(part) for part in parts]
    penalty = {name: g - without_penalty(given)[name] for name, g in gradients(given).items()}
    shares = [part.D / given.D for part in parts]
    meant = "dW = Σ_parts (mₖ/m) · meanₖ: each example counts 1/m"

    def joined(weights: Sequence[float]) -> Tensors:
        return {
            name: sum((w * g[name] for w, g in zip(weights, means, strict=True)), penalty[name]) for name in penalty
        }

    K = len(parts)
    text = (
        f"Means of micro-batches of different sizes ({', '.join(map(str, sizes))}) were averaged as if they were alike."
    )
    yield Mistake("micro-batches averaged", text, meant), joined([1 / K] * K)
    text = f"The means of the micro-batches ({', '.join(map(str, sizes))}) were added up."
    yield Mistake("micro-batches added", text, meant), joined([1.0] * K)
    for k, share in enumerate(shares):
        alone = [float(j == k) for j in range(K)]
        text = f"Only micro-batch {k + 1} of {K} is in it: the gradient was set to zero, or overwritten, in between."
        yield Mistake("one micro-batch", text, meant), joined(alone)
        yield Mistake("one micro-batch", text, meant), joined([share * a for a in alone])
        text = f"Micro-batch {k + 1} of {K} is missing."
        rest = [s * (j != k) for j, s in enumerate(shares)]
        yield Mistake("micro-batch missing", text, meant), joined(rest)
