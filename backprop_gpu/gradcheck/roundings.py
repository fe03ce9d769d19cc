"""How far rounding may move a gradient: errors of one rounding each, carried through the formulas to first order.

A rounding multiplies a result by 1 + e, |e| <= 2^-53. The gradient is computed in complex128 on arrays that add such an
e, drawn at random and times a step that leaves no trace in the real part, to the imaginary part of every result. What
arrives in the imaginary part of the gradient is what those roundings make of it: much where its terms cancel or a
function is ill-conditioned (rows far from 0 under batch normalization, saturated units), nothing where nothing does.
Decisions are those of the real part, so that no kink is crossed. (Monte Carlo arithmetic, Parker 1997, by the complex
step.)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..backends.builtin import is_builtin
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep
from .complex_step import STEP, ComplexStepNamespace
from .costs import ComplexCost, Rows, network_copy

SAMPLES = 8
RELATIVE = 2.0**-36  # by which inputs or results are moved, where errors are not carried to first order
_EXACT = {np.negative, np.positive, np.conjugate}
_FROM_ONE = {np.log1p, np.expm1}  # NumPy's own of complex numbers are as exact as 1 is, not as the result


def responses(
    net: DenseNet, rows: Rows, settings: dict[str, Any], rng: np.random.Generator, *, by_complex_step: bool
) -> list[dict[str, np.ndarray]]:
    """dJ/dtheta's error in units of one rounding, penalty included, by the reference kernels; a few samples of it.

    Without the complex step: what the roundings of parameters and X alone make of the gradient.
    """
    if is_builtin(net.loss):  # its literal form divides by a guard where an output is saturated: by rounding alone
        settings = settings | {"delta": "fused"}
    backend = InexactBackend(Errors(rng)) if by_complex_step else Backend("numpy", np)
    copy = network_copy(net, "complex128" if by_complex_step else "float64", backend, "reference")
    theta, step, upload = net.parameters(), TrainingStep(copy, "sgd", **settings), copy.upload_columns
    Y = upload(rows.Y)
    weights = None if rows.weights is None else upload(rows.weights)

    def gradient(relative: float) -> np.ndarray:
        moved = {name: x * (1.0 + relative * rng.uniform(-1.0, 1.0, x.shape)) for name, x in theta.items()}
        copy.set_parameters(moved)
        X = upload(rows.X * (1.0 + relative * rng.uniform(-1.0, 1.0, rows.X.shape)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a function drops of an imaginary part is an error that is not seen
            step.gradient(X, Y, weights, weights_sum=rows.weights_sum)
        step.penalty()
        return np.array(copy.params.grad)

    found, here = [], gradient(0.0)
    for _ in range(SAMPLES):
        error = np.imag(gradient(0.0)) / STEP if by_complex_step else (gradient(RELATIVE) - here) / RELATIVE
        found.append(copy.params.named(np.where(np.isfinite(error), error, 0.0)))
    return found


def spread(
    net: DenseNet, rows: Rows, settings: dict[str, Any], name: str, direction: np.ndarray, rng: np.random.Generator
) -> float:
    """What the roundings of the complex step itself make of its derivative, in units of one of them."""
    cost = ComplexCost(net, rows, settings, InexactBackend(Errors(rng, RELATIVE)))
    found = [cost.derivative(name, direction) for _ in range(SAMPLES)]
    return float(np.std(found)) / RELATIVE


class Inexact(np.ndarray):
    """A complex array whose results carry an error of one rounding, in units of ``STEP``, in the imaginary part."""

    errors: Errors

    def __array_finalize__(self, made_from: Any) -> None:
        self.errors = getattr(made_from, "errors", None) or Errors(np.random.default_rng())

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **settings: Any) -> Any:
        given, errors = [_plain(x) for x in inputs], self.errors
        if ufunc is np.matmul or method != "__call__":  # each term of a sum is rounded, whatever is left of it
            given = [errors.on(x) for x in given]
        result = getattr(ufunc, method)(*given, **settings)
        if ufunc not in _EXACT:
            result = errors.on(result, 1.0 if ufunc in _FROM_ONE else 0.0)
        if out is not None:
            out[0][...] = _plain(result)
            return out[0]
        return errors.carried(result)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self.errors.carried(super().__array_function__(function, types, args, kwargs))


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Inexact) else x


@dataclass(frozen=True)
class Errors:
    """Where the errors go that are drawn: into the imaginary part, to first order, or, if ``relative`` to the results
    of complex arithmetic, into both parts of these."""

    rng: np.random.Generator
    relative: float = 0.0

    def on(self, x: Any, least: float = 0.0) -> Any:
        """x with the error of one rounding of a number of its size, or of ``least`` where it is smaller."""
        if getattr(x, "dtype", None) is None or x.dtype.kind != "c":
            return x
        drawn = self.rng.uniform(-1.0, 1.0, (2, *np.shape(x)))
        if self.relative:
            return x + self.relative * (np.real(x) * drawn[0] + 1j * np.imag(x) * drawn[1])
        return x + 1j * STEP * np.maximum(np.abs(np.real(x)), least) * drawn[0]

    def carried(self, x: Any) -> Any:
        """``x`` as an array of this kind, if it is a complex one."""
        if isinstance(x, np.complexfloating):
            x = np.asarray(x)
        if not isinstance(x, np.ndarray) or x.dtype.kind != "c":
            return x
        x = x.view(Inexact)
        x.errors = self
        return x


class InexactBackend(Backend):
    """NumPy whose complex arrays are :class:`Inexact`."""

    def __init__(self, errors: Errors) -> None:
        super().__init__("numpy", ComplexStepNamespace())
        self.errors = errors

    def asarray(self, host: Any, dtype: str | None = None) -> Any:
        """The copy carries the error of its own rounding: an input is known no better."""
        return self.errors.carried(self.errors.on(super().asarray(host, dtype)))

    def zeros(self, shape: Sequence[int], dtype: str) -> Any:
        """A buffer whose later contents carry their errors."""
        return self.errors.carried(super().zeros(shape, dtype))
