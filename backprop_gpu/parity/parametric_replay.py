"""Replaying layers whose activation is parametric: what is before it, its own operation, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .oracle import parametric
from .oracle.bounds import Bounded
from .oracle.operations import sum_over
from .oracle.products import Product, Recorded
from .trace import Call

if TYPE_CHECKING:
    from .step_replay import Layer, StepReplay


def there(run: StepReplay, l: int) -> bool:
    """Whether layer l has one."""
    return 0 < l < run.L and bool(run.spec.parametric) and run.spec.parametric[l - 1]


def mixed(
    run: StepReplay, l: int, before: Layer, w: np.ndarray | None
) -> tuple[Callable[[slice], Bounded], Call, Call | None]:
    """Z + alpha D from the recorded Z and D, after these were checked; the call, and that of batch normalization."""
    B, compare, norm = run.B, run.comparator.compare, None
    name, parameters = run.spec.activation(l)
    if run.normalized(l):
        z, entered, norm = run.normalize(l, before, w)
        Z, tensor = Recorded(norm.wrote["A"]), f"U{l}"
        compare("batch_norm", tensor, Z.x, z, inputs=entered)
    else:
        product, tensor = Product(B, run.member.W(l), before.A, plus=run.member.b(l)), f"Z{l}"
        Z = Recorded(run.calls.next("dense").wrote["A"])
        expected = run.expected_rms(product)
        how = {"k": product.k, "expected": expected, "product": product}
        compare("dense", tensor, Z.x, product.__getitem__, inputs=[before.name], **how)
    call, alpha = run.calls.next("parametric"), run.theta[f"alpha{l}"]
    D = call.wrote["D"]
    if D is not None:
        compare("parametric", f"D{l}", D, _of(parametric.difference, run, l, Z), inputs=[tensor])
        compare("parametric", f"S{l}", call.wrote["S"], _of(parametric.slope, run, l, Z), inputs=[tensor])

    def value(rows: slice) -> Bounded:
        z = Z.given(B, rows)
        d = parametric.difference(B, name, parameters, z) if D is None else B.given(D[rows])
        return parametric.mixed(z, alpha.given(B, rows), d)

    return value, call, norm


def _of(function: Callable[..., Bounded], run: StepReplay, l: int, Z: Recorded) -> Callable[[slice], Bounded]:
    return lambda rows: function(run.B, *run.spec.activation(l), Z.given(run.B, rows))


def derivatives(run: StepReplay, l: int, dA: Recorded, layer: Layer, late: np.ndarray | None) -> Recorded:
    """dZ[l] (dU of a normalized layer) as recorded, after it, db and dalpha were checked."""
    assert layer.parametric is not None, "a parametric layer"
    B, name, wrote = run.B, f"alpha{l}", run.calls.next("parametric_vjp").wrote
    D, S = (B.given(layer.parametric.wrote[key]) for key in "DS")
    dZ, terms = parametric.vjp(dA.given(B), D, S, run.theta[name].given(B))
    tensor, inputs = f"dZ{l}" if layer.norm is None else f"dU{l}", [f"dA{l}", f"D{l}", f"S{l}"]
    run.comparator.compare("parametric_vjp", tensor, wrote["dZ"], dZ, inputs=inputs)
    total = sum_over(terms, axis=1)
    total = total if late is None else B.given(late) * total
    total = total if name not in run.of_inputs else B.given(run.of_inputs[name]) + total
    run.comparator.compare("parametric_vjp", f"d{name}", wrote["dalpha"], total, k=dA.x.shape[1], inputs=inputs)
    run.of_inputs[name] = wrote["dalpha"]
    written = Recorded(wrote["dZ"])
    run.bias(l, "parametric_vjp", written, late, wrote["db"], tensor)
    return written
