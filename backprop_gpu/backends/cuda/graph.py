"""A step as a CUDA graph: run a few times from Python, then recorded once and launched as often as asked.

The first runs are real steps: they compile kernels, let cuBLASLt choose and make every buffer, none of which may happen
while a stream is being captured. What is recorded are addresses; so before every replay, of however many steps, the
program is traced again, without running anything, and a graph whose addresses are no longer the program's is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..._typing import Before, Program
from ...errors import DeviceError
from .gemm import Product
from .launch import Call, Graph, Launcher

WARM_UP = 3  # steps that are run by Python before the graph is recorded
UNROLLED = 8  # steps of the graph that long replays launch: fewer gaps between launches

Calls = Sequence[Call | Product]


class BufferMovedError(DeviceError):
    """A recorded address is no longer the program's."""


class NotRecordableError(Exception):
    """An operation has no kernel of its own, so the program that holds it is run by Python; the message says which."""


class Captured:
    """Replays a program a given number of times.

    Attributes
    ----------
    unsupported_reason : str or None
        Why there is no graph; every replay then calls the program from Python. None: there is one, or will be.
    """

    def __init__(self, program: Program, trace: Callable[[Program], Calls], launcher: Launcher) -> None:
        self.program, self.trace, self.launcher = program, trace, launcher
        self.unsupported_reason: str | None = None
        self._graphs: dict[int, Graph] = {}  # by how many steps they hold
        self._calls: tuple[Call | Product, ...] = ()
        self._warm = 0

    def __call__(self, times: int, before: Before | None = None) -> None:
        """Run the program ``times`` times, each after ``before``, which launches one step at a time.

        Raises
        ------
        DeviceError
            If a buffer is no longer where it was when the graph was recorded.
        """
        while times > 0 and (self._warm < WARM_UP or self.unsupported_reason is not None):
            if before is not None:
                before()
            self.program()
            self._warm += 1
            times -= 1
        if times == 0:
            return
        if not self._up_to_date(times if before is None else 1):
            self(times, before)
            return
        if before is not None:
            for _ in range(times):
                before()
                self._graphs[1].launch()
            return
        for steps in sorted(self._graphs, reverse=True):
            for _ in range(times // steps):
                self._graphs[steps].launch()
            times %= steps

    def _up_to_date(self, times: int) -> bool:
        """Check that no buffer has moved, and record the graphs that this replay needs; False if that is impossible."""
        try:
            calls = tuple(self.trace(self.program))
            if self._graphs and calls != self._calls:
                raise BufferMovedError("a buffer of the captured step has moved since; capture the step again")
            self._calls = calls
            for steps in (1, UNROLLED):
                if steps <= times and steps not in self._graphs:
                    self._graphs[steps] = self.launcher.record(calls * steps)
        except BufferMovedError:
            raise
        except (NotRecordableError, DeviceError) as reason:
            self.unsupported_reason = str(reason)
            return False
        return True
