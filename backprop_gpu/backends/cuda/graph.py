"""A step as a CUDA graph: run a few times as it is, then recorded once and launched as often as asked.

The first runs are real steps: they compile kernels, let cuBLASLt choose and make every buffer, none of which may happen
while a stream is being captured. What is recorded are addresses; so before every replay the program is traced again,
without running anything, and a graph whose addresses are no longer the program's is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..._typing import Program
from ...errors import DeviceError
from .gemm import Product
from .launch import Call, Graph, Launcher

WARM_UP = 3  # steps that are run by Python before the graph is recorded

Tape = Sequence[Call | Product]


class NotRecordableError(Exception):
    """An operation has no kernel of its own, so the program that holds it is run by Python; the message says which."""


class Captured:
    """Replays a program a given number of times.

    Attributes
    ----------
    obstacle : str or None
        Why there is no graph: every replay then is the Python itself.
    """

    def __init__(self, program: Program, trace: Callable[[Program], Tape], launcher: Launcher) -> None:
        self.program, self.trace, self.launcher = program, trace, launcher
        self.obstacle: str | None = None
        self._graph: Graph | None = None
        self._tape: Tape = ()
        self._warm = 0

    def __call__(self, times: int) -> None:
        """Run the program ``times`` times.

        Raises
        ------
        DeviceError
            If a buffer is no longer where it was when the graph was recorded.
        """
        while times > 0 and (self._warm < WARM_UP or self.obstacle is not None):
            self.program()
            self._warm += 1
            times -= 1
        if times == 0:
            return
        graph = self._recorded()
        if graph is None:
            self(times)
            return
        for _ in range(times):
            graph.launch()

    def _recorded(self) -> Graph | None:
        """The graph, recorded now if it is not yet, found up to date if it is; None if there can be none."""
        try:
            tape = self.trace(self.program)
            if self._graph is None:
                self._graph, self._tape = self.launcher.record(tape), tape
        except (NotRecordableError, DeviceError) as reason:
            self.obstacle = str(reason)
            return None
        if tape != self._tape:
            raise DeviceError("a buffer of the captured step has moved since; capture the step again")
        return self._graph
