"""NaN or infinity where a test wants it: a kernel set that spoils what one call of one optimizer step has written."""

from __future__ import annotations

import inspect
from typing import Any

from backprop_gpu.backends.protocol import Kernels
from backprop_gpu.network.step import TrainingStep


class PoisonedKernels:
    """Around the kernel set of ``step``'s network, whose place it takes.

    Parameters
    ----------
    operation, output : str
        A method of ``Kernels`` and the name of one of its parameters; ``"state"`` is the first of them.
    call : int
        Which call of that operation within a step, from 0.
    t : int or set of int
        The optimizer steps, from 0, at which it happens: the device's own count, so that a replay does it again.
    index : tuple of int
    value : float
    """

    def __init__(
        self,
        step: TrainingStep,
        operation: str,
        output: str,
        call: int,
        t: int | set[int],
        index: tuple[int, ...] = (),
        value: float = float("nan"),
    ) -> None:
        self._step, self._kernels = step, step.net.kernels
        self._operation, self._output, self._call, self._index, self._value = operation, output, call, index, value
        self._at = {t} if isinstance(t, int) else t
        self._signature = inspect.signature(getattr(Kernels, operation))
        self._calls = 0
        step.net.kernels = self

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._kernels, name)
        if name == "advance":
            return self._counted(inner)
        return self._poisoned(inner) if name == self._operation else inner

    def _counted(self, advance: Any) -> Any:
        def call(*args: Any, **named: Any) -> None:
            self._calls = 0
            advance(*args, **named)

        return call

    def _poisoned(self, operation: Any) -> Any:
        def call(*args: Any, **named: Any) -> None:
            operation(*args, **named)
            self._calls += 1
            if self._calls != self._call + 1:
                return
            x = self._signature.bind(self, *args, **named).arguments[self._output]
            spoil = self._spoils(x[0] if self._output == "state" else x)
            if hasattr(self._kernels, "_python"):  # a program that is recorded has the spoiling in it
                self._kernels._python(spoil)
                return
            if hasattr(self._kernels, "_falls_back"):
                self._kernels._falls_back("poison", "it is Python")
            spoil()

        return call

    def _spoils(self, x: Any) -> Any:
        def spoil() -> None:
            t = int(self._step.net.backend.to_host(self._step._counters)[1])
            if t in self._at:
                x[self._index or (0,) * len(x.shape)] = self._value

        return spoil
