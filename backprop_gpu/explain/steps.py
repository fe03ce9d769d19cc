"""The steps of the chain in words: formula, symbolic shape, and the line of ``maths`` that computes it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..maths.activations import Activation
from ..maths.dense import dense, dense_vjp_bias, dense_vjp_input, dense_vjp_weights
from ..maths.ledger import Denominator
from ..maths.losses import Loss
from .chain import Network

# L of one example, and dL/dAL. Y log 0 and the like: see maths.losses.
LOSSES = {
    "binary_cross_entropy": ("-Σₖ [Y log {A} + (1 - Y) log(1 - {A})]", "-(Y/{A} - (1 - Y)/(1 - {A}))"),
    "categorical_cross_entropy": ("-Σₖ Y log {A}", "-Y/{A}"),
    "squared_error": ("1/(2n) Σₖ ({A} - Y)²", "({A} - Y)/n"),
    "absolute_error": ("1/n Σₖ |{A} - Y|", "sign({A} - Y)/n"),
}
DERIVATIVES = {
    "sigmoid": "{A} (1 - {A})",
    "tanh": "(1 - {A}²)",
    "relu": "[{Z} > 0]",
    "identity": "1",
    "exponential": "{A}",
}
_inverse = vars(Denominator)["inverse"].fget  # the function of the property


@dataclass(frozen=True)
class Step:
    """One tensor and how it is computed.

    Attributes
    ----------
    name : str
        ``"Z1"``, ``"dA2"``, ``"J"``, ...
    formula : str
        As the course writes it, without the 1/m.
    with_m : str
        The formula when the 1/m is multiplied in at this tensor; empty where it cannot be.
    shape : str
        ``"n_1 × m"``.
    meaning : str
        One sentence.
    source : str
        ``"maths/dense.py:12"``, empty where the source cannot be read.
    code : str
        What stands on that line.
    """

    name: str
    formula: str
    shape: str
    meaning: str
    source: str
    code: str
    with_m: str = ""


def steps_of(net: Network) -> tuple[Step, ...]:
    """Every step, forward and then backward, in the order in which they are computed."""
    found = [_step("A0", "A0 = X", "n_0 × m", "The batch: one column per example.", None)]
    for l in range(1, net.L + 1):
        found += _forward(l, net.activations[l - 1], net.L)
    found += _cost(net)
    for l in range(net.L, 0, -1):
        found += _backward(l, net)
    return tuple(found)


def _forward(l: int, g: Activation, L: int) -> list[Step]:
    A = f"A{l}" if l < L else f"A{l} = AL"
    return [
        _step(f"Z{l}", f"Z{l} = W{l} · A{l - 1} + b{l}", f"n_{l} × m", "Each column from one example.", dense),
        _step(
            f"A{l}", f"{A} = {g.name}(Z{l})", f"n_{l} × m", "Entry by entry, down each column.", _function(g, "forward")
        ),
    ]


def _cost(net: Network) -> list[Step]:
    value, _ = _loss_texts(net.loss, net.L)
    mean = "The mean of the row L. This is where the 1/m comes from: the only place where the examples are averaged."
    return [
        _step("L", f"L = {value}", "1 × m", "The loss: one number per example. No m in it.", type(net.loss).value),
        _step("J", "J = (1/m) Σᵢ Lᵢ", "1 × 1", mean, _inverse),
    ]


def _backward(l: int, net: Network) -> list[Step]:
    L, g = net.L, net.activations[l - 1]
    if l == L:
        _, formula = _loss_texts(net.loss, L)
        says = "The derivative of the loss L of each example, each in its own column. Of J it is (1/m) times that."
        dA = _step(f"dA{L}", f"dAL = {formula}", f"n_{L} × m", says, type(net.loss).literal_dAL, f"(1/m) · [{formula}]")
    else:
        formula = f"W{l + 1}ᵀ · dZ{l + 1}"
        says = "Columns in, columns out: the examples do not meet here, so there is nothing to average."
        dA = _step(f"dA{l}", f"dA{l} = {formula}", f"n_{l} × m", says, dense_vjp_input, f"(1/m) · {formula}")
    if l == L and g.name == "softmax":
        product = f"A{l} ⊙ (dA{l} - Σₖ dA{l} ⊙ A{l})"
    else:
        slope = DERIVATIVES.get(g.name, "{g}′({Z})").format(A=f"A{l}", Z=f"Z{l}", g=g.name)
        product = f"dA{l} ⊙ {slope}"
    dW, db = f"dZ{l} · A{l - 1}ᵀ", f"Σᵢ dZ{l}"
    meet = "The product adds up over the examples: here a sum can become a mean."
    return [
        dA,
        _step(
            f"dZ{l}",
            f"dZ{l} = {product}",
            f"n_{l} × m",
            "Entry by entry: whatever factor dA carries, dZ carries too.",
            _function(g, "vjp"),
            f"(1/m) · {product}",
        ),
        _step(f"dW{l}", f"dW{l} = {dW}", f"n_{l} × n_{l - 1}", meet, dense_vjp_weights, f"(1/m) · {dW}"),
        _step(
            f"db{l}",
            f"db{l} = {db}",
            f"n_{l} × 1",
            "The sum over the examples, one per unit.",
            dense_vjp_bias,
            f"(1/m) · {db}",
        ),
    ]


def _loss_texts(loss: Loss, L: int) -> tuple[str, str]:
    """L and dL/dAL as formulas."""
    if loss.name in LOSSES and not getattr(loss, "label_smoothing", 0.0):
        value, derivative = (text.format(A="AL") for text in LOSSES[loss.name])
        return value, derivative
    return f"{loss.name}(Z{L}, Y)", "dL/dAL"


def _function(g: Activation, kind: str) -> Callable[..., Any]:
    given: Any = g.forward_function if kind == "forward" else g.vjp_function
    return given.func if isinstance(given, functools.partial) else given


def _step(
    name: str, formula: str, shape: str, meaning: str, function: Callable[..., Any] | None, with_m: str = ""
) -> Step:
    source, code = ("", "") if function is None else source_line(function)
    return Step(
        name, formula, shape, meaning, source, code, f"{formula.partition(' = ')[0]} = {with_m}" if with_m else ""
    )


@functools.cache
def source_line(function: Callable[..., Any]) -> tuple[str, str]:
    """``("maths/dense.py:12", "return xp.matmul(W, A_prev) + b")``: the last return; empty where there is no source."""
    try:
        lines, first = inspect.getsourcelines(function)
        path = Path(inspect.getsourcefile(function) or "")
    except (OSError, TypeError):
        return "", ""
    at = max((i for i, line in enumerate(lines) if line.lstrip().startswith("return ")), default=0)
    package = Path(__file__).resolve().parents[1]
    file = path.relative_to(package).as_posix() if path.is_relative_to(package) else path.name
    return f"{file}:{first + at}", lines[at].strip()
