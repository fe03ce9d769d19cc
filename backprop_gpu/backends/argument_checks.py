"""Checks of a kernel's arguments: buffers whose shapes or dtypes do not fit together are refused, nothing is written.

Compiled kernels get addresses and sizes only, so a wrong shape would make them write into other memory.
``with_argument_checks`` adds the checks to the operations of a kernel set's class; each check has the parameters of its
operation. A recorded step is checked while it is recorded, so its replay costs nothing more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .._typing import Array, Namespace
from ..errors import ConfigError, ShapeError
from ..maths.losses import Loss
from ..maths.optimizers import Optimizer
from .protocol import Dropout

T = TypeVar("T")
Expected = tuple[Array, tuple[int, ...]]

ONE = (1,)


def check_loss(loss: Loss, n: int) -> None:
    """That a network with n outputs can have this loss.

    Raises
    ------
    ConfigError
        Otherwise.
    """
    if loss.labels == "classes" and n < 2:
        raise ConfigError(f"{loss.name} needs at least 2 outputs; for one use binary_cross_entropy")
    if n % loss.per_target:
        each = loss.per_target
        raise ConfigError(f"{each} quantiles need {each} outputs per target column; {n} outputs are no multiple")
    groups = getattr(loss, "groups", (n,))
    if sum(groups) != n:
        raise ConfigError(f"{loss.name}: groups {list(groups)} are {sum(groups)} outputs, the network has {n}")


def _check_arrays(operation: str, dtype: Any, **expected: Expected) -> None:
    """Check the shape and the dtype of each array that is not None."""
    for name, (x, shape) in expected.items():
        if x is not None and (x.shape != shape or x.dtype != dtype):
            raise ShapeError(f"{operation}: {name} must be {shape} in {dtype}, got {tuple(x.shape)} in {x.dtype}")


def _shape_of(operation: str, name: str, x: Array, dimensions: int) -> tuple[int, ...]:
    """The shape of an array that says what the others must be."""
    if len(x.shape) != dimensions or 0 in x.shape:
        raise ShapeError(f"{operation}: {name} must have {dimensions} dimensions and entries, got {tuple(x.shape)}")
    return tuple(x.shape)


def _check_saved(operation: str, saved: Any, n: int, m: int) -> None:
    """That what a forward pass saved is of n units and m examples; Philox words have 4 rows."""
    for name, x in vars(saved).items():
        if hasattr(x, "shape") and len(x.shape) == 2 and (x.shape[1] != m or x.shape[0] not in (n, 4)):
            raise ShapeError(f"{operation}: saved {name} must be ({n}, {m}), got {tuple(x.shape)}")


def _check_dropout(operation: str, xp: Namespace, dropout: Dropout | None, n: int, m: int) -> None:
    if dropout is not None:
        if not 0.0 <= dropout.rate < 1.0:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {dropout.rate!r}")
        quads, examples = (dropout.quads, (-(-n // 4), 1)), (dropout.examples, (1, m))
        _check_arrays(
            operation, xp.int64, quads=quads, examples=examples, step=(dropout.step, ONE), first=(dropout.first, ONE)
        )


def dense(
    xp: Namespace, W: Array, A_prev: Array, b: Array, activation: Any, dropout: Any, *, A: Array, saved: Any
) -> None:
    """W (n, k), A_prev (k, m), b (n, 1), A (n, m)."""
    (n, k), (_, m) = _shape_of("dense", "W", W, 2), _shape_of("dense", "A_prev", A_prev, 2)
    _check_arrays("dense", W.dtype, A_prev=(A_prev, (k, m)), b=(b, (n, 1)), A=(A, (n, m)))
    _check_saved("dense", saved, n, m)
    _check_dropout("dense", xp, dropout, n, m)


def dense_vjp_input(
    xp: Namespace,
    W: Array,
    dZ: Array,
    activation_prev: Any,
    dropout_prev: Any,
    A_prev: Array,
    saved_prev: Any,
    *,
    scale: Array,
    dZ_prev: Array,
    db_prev: Array,
    accumulate: bool,
) -> None:
    """W (n, k), dZ (n, m), A_prev and dZ_prev (k, m), db_prev (k, 1), scale (1,)."""
    name = "dense_vjp_input"
    (n, k), (_, m) = _shape_of(name, "W", W, 2), _shape_of(name, "dZ", dZ, 2)
    layer: dict[str, Expected] = {
        "A_prev": (A_prev, (k, m)),
        "dZ_prev": (dZ_prev, (k, m)),
        "db_prev": (db_prev, (k, 1)),
    }
    _check_arrays(name, W.dtype, dZ=(dZ, (n, m)), **layer, scale=(scale, ONE))
    _check_dropout(name, xp, dropout_prev, k, m)
    _check_saved(name, saved_prev, k, m)


def dense_vjp_params(xp: Namespace, dZ: Array, A_prev: Array, *, scale: Array, dW: Array, accumulate: bool) -> None:
    """dZ (n, m), A_prev (k, m), dW (n, k), scale (1,)."""
    name = "dense_vjp_params"
    (n, m), (k, _) = _shape_of(name, "dZ", dZ, 2), _shape_of(name, "A_prev", A_prev, 2)
    _check_arrays(name, dZ.dtype, A_prev=(A_prev, (k, m)), dW=(dW, (n, k)), scale=(scale, ONE))


def batch_norm(
    xp: Namespace,
    Z: Array,
    gamma: Array,
    beta: Array,
    activation: Any,
    dropout: Any,
    weights: Array,
    *,
    mean: Array,
    variance: Array,
    A: Array,
    saved: Any,
    X: Array,
    inverse_std: Array,
) -> None:
    """Z, X, A (n, m); gamma, beta, mean, variance, inverse_std (n, 1); weights (1, m)."""
    n, m = _shape_of("batch_norm", "Z", Z, 2)
    units = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance, "inverse_std": inverse_std}
    of_units: dict[str, Expected] = {name: (x, (n, 1)) for name, x in units.items()}
    _check_arrays("batch_norm", Z.dtype, X=(X, (n, m)), A=(A, (n, m)), weights=(weights, (1, m)), **of_units)
    _check_dropout("batch_norm", xp, dropout, n, m)
    _check_saved("batch_norm", saved, n, m)


def batch_norm_vjp(
    xp: Namespace,
    dU: Array,
    X: Array,
    inverse_std: Array,
    gamma: Array,
    weights: Array,
    *,
    scale: Array,
    dZ: Array,
    dgamma: Array,
    accumulate: bool,
) -> None:
    """dU, X, dZ (n, m); inverse_std, gamma, dgamma (n, 1); weights (1, m); scale (1,)."""
    n, m = _shape_of("batch_norm_vjp", "dU", dU, 2)
    units: dict[str, Expected] = {"inverse_std": (inverse_std, (n, 1)), "gamma": (gamma, (n, 1))}
    layer: dict[str, Expected] = {"X": (X, (n, m)), "dZ": (dZ, (n, m)), "dgamma": (dgamma, (n, 1))}
    _check_arrays("batch_norm_vjp", dU.dtype, **layer, **units, weights=(weights, (1, m)), scale=(scale, ONE))


def member_weights(xp: Namespace, W: Array, r: Array, s: Array, *, out: Array) -> None:
    """W, out (n, k), r (k,), s (n,)."""
    n, k = _shape_of("member_weights", "W", W, 2)
    _check_arrays("member_weights", W.dtype, r=(r, (k,)), s=(s, (n,)), out=(out, (n, k)))


def member_weights_vjp(
    xp: Namespace,
    G: Array,
    W: Array,
    r: Array,
    s: Array,
    *,
    dW: Array,
    dr: Array,
    ds: Array,
    accumulate: bool,
    accumulate_own: bool,
) -> None:
    """G, W, dW (n, k), r, dr (k,), s, ds (n,): both or neither."""
    name = "member_weights_vjp"
    n, k = _shape_of(name, "W", W, 2)
    _check_arrays(name, W.dtype, G=(G, (n, k)), r=(r, (k,)), s=(s, (n,)), dW=(dW, (n, k)), dr=(dr, (k,)), ds=(ds, (n,)))
    if (s is None) != (ds is None):
        raise ShapeError(f"{name}: s and ds go together, got {'ds' if s is None else 's'} alone")


def parametric(
    xp: Namespace,
    Z: Array,
    alpha: Array,
    activation: Any,
    dropout: Any,
    *,
    A: Array,
    saved: Any,
    D: Array,
    S: Array,
) -> None:
    """Z, A, D, S (n, m); alpha (n, 1)."""
    n, m = _shape_of("parametric", "Z", Z, 2)
    layer: dict[str, Expected] = {"A": (A, (n, m)), "D": (D, (n, m)), "S": (S, (n, m))}
    _check_arrays("parametric", Z.dtype, alpha=(alpha, (n, 1)), **layer)
    _check_dropout("parametric", xp, dropout, n, m)
    _check_saved("parametric", saved, n, m)


def parametric_vjp(
    xp: Namespace,
    dA: Array,
    D: Array,
    S: Array,
    alpha: Array,
    *,
    scale: Array,
    dZ: Array,
    dalpha: Array,
    db: Array,
    accumulate: bool,
    accumulate_b: bool,
) -> None:
    """dA, D, S, dZ (n, m); alpha, dalpha, db (n, 1); scale (1,)."""
    n, m = _shape_of("parametric_vjp", "dA", dA, 2)
    units: dict[str, Expected] = {"alpha": (alpha, (n, 1)), "dalpha": (dalpha, (n, 1)), "db": (db, (n, 1))}
    layer: dict[str, Expected] = {"D": (D, (n, m)), "S": (S, (n, m)), "dZ": (dZ, (n, m))}
    _check_arrays("parametric_vjp", dA.dtype, **units, **layer, scale=(scale, ONE))


def scaling(xp: Namespace, X: Array, s: Array, *, H: Array) -> None:
    """X, H (k, m), s (k, 1)."""
    k, m = _shape_of("scaling", "X", X, 2)
    _check_arrays("scaling", X.dtype, s=(s, (k, 1)), H=(H, (k, m)))


def scaling_vjp(
    xp: Namespace, dH: Array, X: Array, s: Array, *, scale: Array, dX: Array, ds: Array, accumulate: bool
) -> None:
    """dH, X, dX (k, m); s, ds (k, 1); scale (1,)."""
    k, m = _shape_of("scaling_vjp", "dH", dH, 2)
    of_inputs: dict[str, Expected] = {"s": (s, (k, 1)), "ds": (ds, (k, 1))}
    _check_arrays("scaling_vjp", dH.dtype, X=(X, (k, m)), dX=(dX, (k, m)), **of_inputs, scale=(scale, ONE))


def periodic(xp: Namespace, X: Array, w: Array, b: Array, V: Array, c: Array, *, E: Array, P: Array, Q: Array) -> None:
    """X (k, m) with k >= J; w, b (J, h); V (J o, h), c (J o, 1); E (J o, m); P, Q (J h, m)."""
    name = "periodic"
    (k, m), (J, h), outputs = _shape_of(name, "X", X, 2), _shape_of(name, "w", w, 2), _outputs(name, V, w)
    if k < J:
        raise ShapeError(f"{name}: w has rows for {J} inputs, X has {k}")
    of_outputs: dict[str, Expected] = {"V": (V, (outputs, h)), "c": (c, (outputs, 1)), "E": (E, (outputs, m))}
    _check_arrays(name, X.dtype, w=(w, (J, h)), b=(b, (J, h)), **of_outputs, P=(P, (J * h, m)), Q=(Q, (J * h, m)))


def periodic_vjp(
    xp: Namespace,
    dE: Array,
    X: Array,
    P: Array,
    Q: Array,
    V: Array,
    *,
    scale: Array,
    dw: Array,
    db: Array,
    dV: Array,
    dc: Array,
    accumulate: bool,
) -> None:
    """As ``periodic``, with a derivative for each of its tensors; scale (1,)."""
    name = "periodic_vjp"
    (k, m), (J, h), outputs = _shape_of(name, "X", X, 2), _shape_of(name, "dw", dw, 2), _outputs(name, V, dw)
    if k < J:
        raise ShapeError(f"{name}: dw has rows for {J} inputs, X has {k}")
    of_outputs: dict[str, Expected] = {"V": (V, (outputs, h)), "dV": (dV, (outputs, h)), "dc": (dc, (outputs, 1))}
    of_waves: dict[str, Expected] = {"dw": (dw, (J, h)), "db": (db, (J, h)), "P": (P, (J * h, m)), "Q": (Q, (J * h, m))}
    _check_arrays(name, X.dtype, dE=(dE, (outputs, m)), **of_outputs, **of_waves, scale=(scale, ONE))


def _outputs(operation: str, V: Array, w: Array) -> int:
    """The rows of V, as many for each of the inputs."""
    rows, J = _shape_of(operation, "V", V, 2)[0], w.shape[0]
    if rows % J:
        raise ShapeError(f"{operation}: V must have as many rows for each of {J} inputs, got {rows}")
    return rows


def output_delta(
    xp: Namespace,
    loss: Loss,
    form: str,
    Z: Array,
    Y: Array,
    weights: Array,
    *,
    inverse_denominator: Array,
    early: bool,
    dZ: Array,
    db: Array,
    value: Array,
    accumulate: bool,
) -> None:
    """Z, dZ (n, m); Y likewise, or (1, m) class labels; weights (1, m); db (n, 1); 1/D, value (1,); n fits the loss."""
    name = "output_delta"
    n, m = _shape_of(name, "Z", Z, 2)
    check_loss(loss, n)
    labels = loss.labels == "classes" and tuple(Y.shape) == (1, m)
    if not labels or Y.dtype != xp.int64:
        _check_arrays(name, Z.dtype, Y=(Y, (1, m) if labels else (n, m)))
    ones: dict[str, Expected] = {"inverse_denominator": (inverse_denominator, ONE), "value": (value, ONE)}
    _check_arrays(name, Z.dtype, weights=(weights, (1, m)), dZ=(dZ, (n, m)), db=(db, (n, 1)), **ones)


def penalty(xp: Namespace, theta: Array, grad: Array, *, l1: Array, l2: Array, value: Array) -> None:
    """theta, grad (size,); l1, l2, value (1,)."""
    size = _shape_of("penalty", "theta", theta, 1)
    _check_arrays("penalty", theta.dtype, grad=(grad, size), l1=(l1, ONE), l2=(l2, ONE), value=(value, ONE))


def global_norm(xp: Namespace, grad: Array, max_norm: float, *, norm: Array, factor: Array) -> None:
    """grad (size,); norm, factor (1,)."""
    _shape_of("global_norm", "grad", grad, 1)
    _check_arrays("global_norm", grad.dtype, norm=(norm, ONE), factor=(factor, ONE))


def update(
    xp: Namespace,
    optimizer: Optimizer,
    theta: Array,
    grad: Array,
    state: Sequence[Array],
    *,
    scalars: Array,
    factor: Array,
    decay: bool,
) -> None:
    """theta, grad and each state vector (size,); a scalar for each of the optimizer's numbers; factor (1,)."""
    size = _shape_of("update", "theta", theta, 1)
    if len(state) != len(optimizer.state):
        raise ShapeError(f"update: {optimizer.name} has {len(optimizer.state)} state vectors, got {len(state)}")
    numbers = (len(optimizer.step_scalars(1, optimizer.learning_rate)),)
    named: dict[str, Expected] = {f"state {i}": (vector, size) for i, vector in enumerate(state)}
    _check_arrays("update", theta.dtype, grad=(grad, size), scalars=(scalars, numbers), factor=(factor, ONE), **named)


def gather(xp: Namespace, source: Array, order: Array, counters: Array, stride: int, *, out: Array) -> None:
    """source (n, width); out (m, width), m at most ``stride``; order (k,) and counters (2,), int64."""
    (_, width), (m, _) = _shape_of("gather", "source", source, 2), _shape_of("gather", "out", out, 2)
    (k,) = _shape_of("gather", "order", order, 1)
    _check_arrays("gather", source.dtype, out=(out, (m, width)))
    _check_arrays("gather", xp.int64, order=(order, (k,)), counters=(counters, (2,)))
    if not m <= stride or m > k:
        raise ShapeError(f"gather: {m} rows do not fit into a stride of {stride} and an order of {k}")


def advance(xp: Namespace, counters: Array, table: Array, values: Array, *, step_scalars: Array, value: Array) -> None:
    """counters (2,) int64; table (steps, numbers), values (steps,), step_scalars (numbers,), value (1,)."""
    steps, numbers = _shape_of("advance", "table", table, 2)
    _check_arrays(
        "advance", table.dtype, values=(values, (steps,)), step_scalars=(step_scalars, (numbers,)), value=(value, ONE)
    )
    _check_arrays("advance", xp.int64, counters=(counters, (2,)))


CHECKS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        *(dense, dense_vjp_input, dense_vjp_params, batch_norm, batch_norm_vjp, output_delta),
        *(member_weights, member_weights_vjp),
        *(parametric, parametric_vjp, scaling, scaling_vjp, periodic, periodic_vjp),
        *(penalty, global_norm, update, gather, advance),
    )
}


@functools.cache
def with_argument_checks(kind: type[T]) -> type[T]:
    """The class of a kernel set with the checks before its operations."""
    members = {name: _checked(check, kind, name) for name, check in CHECKS.items()}
    return type(kind.__name__, (kind,), members | {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _checked(check: Callable[..., None], kind: type[Any], name: str) -> Callable[..., None]:
    @functools.wraps(getattr(kind, name))
    def checked(self: Any, *given: Any, **named: Any) -> None:
        if not self.repeats:
            check(self.xp, *given, **named)
        getattr(kind, name)(self, *given, **named)  # looked up now: a class may be changed to try something

    return checked
