"""What the course's functions ask of their arrays: one library, one device, and shapes that fit."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from .._typing import Array, Namespace
from ..errors import ConfigError, DataError, DeviceError, ShapeError


def array_namespace(**arrays: Array) -> Namespace:
    """The library of these arrays, found from the arrays themselves; keywords are their names in messages.

    Raises
    ------
    DeviceError
        If they belong to different libraries or lie on different devices.
    DataError
        If one of them is no array.
    """
    (first, x), *others = arrays.items()
    xp = _library(first, x)
    for name, other in others:
        yp = _library(name, other)
        if yp is not xp:
            # What NumPy holds can always be moved; the way back needs an explicit copy in most libraries.
            mover, there = (first, yp) if xp is np else (name, xp)
            fix = f"bring them together, for example {mover} = {there.__name__}.asarray({mover})"
        elif other.device != x.device:
            fix = "copy one of them to the other's device"
        else:
            continue
        raise DeviceError(
            f"{first} belongs to {xp.__name__} ({x.device}) and {name} to {yp.__name__} ({other.device}): {fix}"
        )
    return xp


def _library(name: str, x: Array) -> Namespace:
    announced = getattr(x, "__array_namespace__", None)
    if announced is not None:
        return announced()
    # A GPU library that mirrors NumPy need not announce its namespace: it is the module whose ``ndarray`` this is.
    module = sys.modules.get(type(x).__module__.partition(".")[0])
    if isinstance(x, getattr(module, "ndarray", ())):
        return module
    raise DataError(f"{name} is a {type(x).__name__}, not an array: convert it, for example with numpy.asarray({name})")


def floating(AL: Array, Y: Array, name: str = "Y") -> tuple[Namespace, Array, Array]:
    """The namespace, AL as a floating-point array, and Y in AL's dtype (the assignment's labels are integers)."""
    xp = array_namespace(AL=AL, **{name: Y})
    check_shape(name, Y, AL.shape, "the shape of AL")
    AL = 1.0 * AL
    return xp, AL, xp.asarray(Y, dtype=AL.dtype)


def count_layers(parameters: Mapping[str, Array]) -> int:
    """L, once W1, b1, ..., WL, bL are known to be there."""
    L = max(1, (len(parameters) + 1) // 2)
    if missing := [f"{kind}{l}" for l in range(1, L + 1) for kind in "Wb" if f"{kind}{l}" not in parameters]:
        raise ConfigError(
            f"parameters has no {', '.join(missing)}: it must hold W1, b1, ..., WL, bL and nothing else, "
            f"got {', '.join(map(str, parameters)) or 'nothing'}"
        )
    return L


def check_affine(in_name: str, A: Array, W_name: str, W: Array, b_name: str, b: Array) -> None:
    """That W A + b can be computed, for columns of examples."""
    for name, x in ((in_name, A), (W_name, W)):
        if len(x.shape) != 2:
            raise ShapeError(f"{name} has shape {x.shape}, but it must have two axes: reshape it to (rows, columns)")
    rows, columns = A.shape
    if W.shape[1] != rows:
        hint = f"; examples are columns: did you mean {in_name}.T?" if W.shape[1] == columns else ""
        raise ShapeError(
            f"{W_name} has shape {W.shape}, but it must have {rows} columns, one for each row of {in_name} "
            f"{A.shape}{hint}"
        )
    check_shape(b_name, b, (W.shape[0], 1), f"one number per row of {W_name}")


def check_shape(name: str, x: Array, shape: tuple[int, ...], meaning: str) -> None:
    """That an array has a shape; ``meaning`` says why."""
    if x.shape == shape:
        return
    size = int(np.prod(shape))
    fix = f"; reshape it: {name}.reshape{shape}" if len(x.shape) != 2 and int(np.prod(x.shape)) == size else ""
    raise ShapeError(f"{name} has shape {x.shape}, but it must be {shape}, {meaning}{fix}")
