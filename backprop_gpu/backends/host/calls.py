"""NumPy calls that are made at once, or written down to be made over and over, and the buffers they share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Tape = list[Callable[[], object]]


class Calls:
    """Where an operation's NumPy calls go.

    Attributes
    ----------
    tape : list or None
        While a program is being captured, what its replay will call; None: calls are made at once.
    """

    def __init__(self, zeros: Callable[..., np.ndarray] = np.zeros) -> None:
        self.tape: Tape | None = None
        self._zeros = zeros
        self._flat: dict[tuple[str, str], np.ndarray] = {}

    def do(self, function: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """Call, or write the call down."""
        if self.tape is None:
            function(*arguments, **named)
        else:
            self.tape.append(functools.partial(function, *arguments, **named))

    def scratch(self, use: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A buffer whose contents do not outlive an operation; one vector for each use, as long as the longest."""
        size, key = math.prod(shape), (use, np.dtype(dtype).str)
        if key not in self._flat or self._flat[key].shape[0] < size:
            self._flat[key] = self._zeros((size,), np.dtype(dtype).name)
            if use == "ones":
                self._flat[key][...] = 1
        return self._flat[key][:size].reshape(shape)

    def release(self) -> None:
        """Let go of every buffer."""
        self._flat.clear()

    def zeros(self, like: np.ndarray) -> np.ndarray:
        """Zeros of a shape, never to be written: NumPy compares arrays several times faster than it does a number."""
        return self.scratch("zeros", like.shape, like.dtype)

    def ones(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Ones, never to be written."""
        return self.scratch("ones", shape, dtype)


def number(x: float, like: np.ndarray) -> np.ndarray:
    """A constant as NumPy takes it fastest: an array without dimensions."""
    return np.array(x, like.dtype)
