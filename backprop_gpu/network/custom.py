"""Formulas of one's own: an ``Activation``, or an object of a subclass of ``Loss``, ``Optimizer`` or ``Schedule``.

Their own functions compute them, since the package has no kernels for them. A file holds their names and parameters but
not their code, so the objects must be passed again when it is loaded (``custom``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from ..backends.base import Backend
from ..backends.builtin import is_builtin
from ..devices import one_line
from ..errors import CheckpointError, ConfigError
from ..maths.activations import Activation
from ..maths.losses import Loss
from ..maths.optimizers import Optimizer
from ..maths.registry import is_number
from ..maths.schedules import Schedule

Formula: TypeAlias = Activation | Loss | Optimizer | Schedule
Custom: TypeAlias = Formula | type[Formula] | Sequence[Formula | type[Formula]]

MARK = "custom"  # the key of a spec with the origin of the formula
KINDS: dict[str, type] = {"activation": Activation, "loss": Loss, "optimizer": Optimizer, "schedule": Schedule}


def spec_of(formula: Formula) -> Any:
    """``formula.spec()``; with ``"custom": "module.Name"`` if it is not the package's own."""
    spec = formula.spec()
    if is_builtin(formula):
        return spec
    return (spec if isinstance(spec, dict) else {"name": spec}) | {MARK: _origin(formula)}


def _origin(formula: Formula) -> str:
    """The module and name of its code, so that a reader of the file can find it."""
    made: Any = type(formula)
    if made is Activation:
        made = formula.forward_function  # type: ignore[union-attr]
    return f"{getattr(made, '__module__', '?')}.{getattr(made, '__qualname__', '?')}"


def is_custom(spec: Any) -> bool:
    """Whether a spec of :func:`spec_of` is of a formula that the package does not have."""
    return isinstance(spec, dict) and MARK in spec


def restored(spec: Any, kind: str, custom: Custom, path: object) -> Any:
    """Return a spec from a file unchanged or, if it names a user's formula, that formula with the file's parameters.

    Parameters
    ----------
    spec : str or dict
        What :func:`spec_of` gave.
    kind : {"activation", "loss", "optimizer", "schedule"}
    custom : formula or class of one, or a sequence of them
    path : object
        The file, for the error.

    Raises
    ------
    CheckpointError
        If ``custom`` does not have it, or it does not take its parameters.
    """
    if not is_custom(spec):
        return spec
    parameters = {key: value for key, value in spec.items() if key not in ("name", MARK)}
    for given in custom if isinstance(custom, Sequence) else (custom,):
        if getattr(given, "name", None) != spec["name"] or not _is_a(given, KINDS[kind]):
            continue
        try:
            if isinstance(given, Activation):
                return replace(given, parameters=tuple(parameters.items()))
            return (given if isinstance(given, type) else type(given))(**parameters)
        except (TypeError, ConfigError) as error:
            raise CheckpointError(f"{path}: {kind} {spec['name']!r} does not fit: {one_line(error)}") from error
    raise CheckpointError(
        f"{path} needs the {kind} {spec['name']!r} ({spec[MARK]}), which is not one of the package's: give the object "
        f"to what reads the file, custom=[...]"
    )


def _is_a(given: Any, base: type) -> bool:
    return issubclass(given, base) if isinstance(given, type) else isinstance(given, base)


# -- at the start ------------------------------------------------------------------------------------------------------


def check_custom(backend: Backend, dtype: str, n_outputs: int, activations: Iterable[Activation], loss: Loss) -> None:
    """Try a network's own formulas on zeros, so that what cannot be trained or saved is refused before it is.

    Raises
    ------
    ConfigError
        Names the formula and what is wrong with it.
    """
    own = [a for a in activations if not is_builtin(a)]
    for a in own:
        if any(b.name == a.name and replace(a, parameters=b.parameters) != b for b in own):
            raise ConfigError(f"two activations are called {a.name!r}; give each a name of its own")
        _check_saved("activation", a)
        forward, vjp = a.forward, a.vjp
        _try(backend, dtype, f"activation {a.name!r}: forward", lambda xp, Z, f=forward: f(xp, Z), (3, 2))
        _try(backend, dtype, f"activation {a.name!r}: vjp", lambda xp, Z, f=vjp: f(xp, Z, Z, Z), (3, 2))
    if not is_builtin(loss):
        _check_saved("loss", loss)
        shape = (n_outputs, 2)
        _try(backend, dtype, f"loss {loss.name!r}: value", lambda xp, Z: loss.value(xp, Z, 0.0 * Z), shape, (1, 2))
        _try(backend, dtype, f"loss {loss.name!r}: delta", lambda xp, Z: loss.delta(xp, Z, 0.0 * Z), shape)


def check_custom_rule(backend: Backend, dtype: str, optimizer: Optimizer, schedule: Schedule) -> None:
    """Try an optimizer and a schedule of the user's own: a step on zeros, and the factor at both ends of a run.

    Raises
    ------
    ConfigError
        Names which and what is wrong with it.
    """
    if not is_builtin(optimizer) and dtype != "complex128":
        name = f"optimizer {optimizer.name!r}: "
        scalars = _called(f"{name}scalars", lambda: optimizer.scalars(1, optimizer.learning_rate))

        def applied(xp: Any, theta: Any) -> Any:
            numbers = [backend.asarray([value], dtype) for value in scalars]  # as kernels have them: arrays (1,)
            state = [theta + 0.0 for _ in optimizer.state_names]
            moved, kept = optimizer.apply(xp, theta, theta, state, numbers, decay=False)
            if len(kept) != len(state):
                raise ValueError(f"{len(kept)} state vectors came back where {len(state)} are named")
            return moved

        _try(backend, dtype, f"{name}apply", applied, (2,))
    if not is_builtin(schedule):
        for t in (0, 9):
            factor = _called(f"schedule {schedule.name!r}: factor", partial(schedule.factor, t, 10))
            if not (is_number(factor) and 0.0 <= factor < math.inf):
                raise ConfigError(f"schedule {schedule.name!r}: factor gave {factor!r}; return a number of at least 0")


def _called(name: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:  # a user's code may raise anything
        raise ConfigError(f"{name} raised {one_line(error)}; see the built-in ones for its arguments") from error


def _check_saved(kind: str, formula: Activation | Loss) -> None:
    try:
        json.dumps(spec_of(formula))
    except TypeError:
        raise ConfigError(
            f"{kind} {formula.name!r}: its parameters must be numbers, texts or lists of them, so that the network can "
            "be saved; what else it needs belongs into its code"
        ) from None


def _try(
    backend: Backend,
    dtype: str,
    name: str,
    function: Callable[..., Any],
    shape: tuple[int, ...],
    result: tuple[int, ...] | None = None,
) -> None:
    """Check that a function returns an array of this shape (by default its argument's)."""
    with backend.activate(), np.errstate(all="ignore"):
        Z = backend.zeros(shape, dtype)
        got = _called(name, lambda: function(backend.xp, Z))
    found, wanted = tuple(getattr(got, "shape", ())), result or shape
    if found != wanted:
        columns = ", examples as columns" if len(wanted) == 2 else ""
        raise ConfigError(f"{name} gave an array {found} where {wanted} is needed{columns}")
