"""A recorded step on two cores: each takes half of the examples, with one-threaded products and a gradient of its own.

The derivative of an average is the average of the derivatives, so the gradients of the halves only have to be added
before the update, of which each core again does half. The cores wait for each other where one needs what the other
wrote. The bits do not depend on which thread plays which half: short replays, not worth a thread, give the same.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import sys
import threading
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .calling import REALS, Kernel, call, compiled, inline, integers
from .recording import Along, Call, Columns, Elements, Part, Summed, Tape, address_of

WORKERS = 2
# From how many floating-point operations in a step's products on, and from how many examples, halves are worth it.
ENOUGH_WORK, ENOUGH_EXAMPLES = 6_000_000, 64
SHORT = 4  # steps that one thread plays alone: another one takes some 50 us to start
ALIGNED = 16  # columns, so that two cores never write to one cache line
_SPINS = 2_000  # looks at the other's progress before the processor is offered to someone else


@intrinsic
def _arrive(typingctx: Any, address: Any) -> Any:
    """Add 1 to the int64 at an address; returns what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(64)
        place = builder.inttoptr(arguments[0], wide.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(wide, 1), "seq_cst")

    return types.int64(types.int64), generate


@intrinsic
def _look(typingctx: Any, address: Any) -> Any:
    """The int64 at an address, which another thread may write."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def _offer(typingctx: Any, address: Any) -> Any:
    """Call the operating system's yield."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@inline
def _wait(shared, workers, offer):
    """Until every worker has come here as often as this one; ``shared``: arrivals, and whether to give up."""
    target = (_arrive(shared) // workers + 1) * workers
    spins = 0
    while _look(shared) < target and _look(shared + 64) == 0:
        spins += 1
        if spins > _SPINS:
            _offer(offer)


def play_together(kernels: Any, rows: Any, times: Any, shared: Any, workers: Any, offer: Any) -> None:
    """As ``recording.play``; a kernel of address 0 waits for the others. Ends early if one has given up."""
    for _ in range(times):
        if _look(shared + 64) != 0:
            return
        for i in range(kernels.size):
            if kernels[i] == 0:
                _wait(shared, workers, offer)
            else:
                call(kernels[i], rows[i])


@functools.cache
def _player() -> Any:
    return compiled(functools.partial(nb.njit, nogil=True), play_together)


# Row: 0 total, 1 part, 2 n.
@functools.cache
def _add(dtype: str) -> Kernel:
    """total += part;  part <- 0."""
    f, floats = REALS[dtype].f, REALS[dtype].floats

    @inline
    def body(address):
        a = integers(address, 3)
        total, part = floats(a[0], a[2]), floats(a[1], a[2])
        for i in range(a[2]):
            total[i] += part[i]
            part[i] = f(0.0)

    return Kernel("add", dtype, body)


class Together:
    """The calls of a program, shared out."""

    def __init__(self, calls: list[Call]) -> None:
        self._own: dict[int, tuple[np.ndarray, list[np.ndarray]]] = {}
        phases = [(kind, list(group)) for kind, group in itertools.groupby(calls, _kind)]
        shares: list[list[list[Call]]] = []  # of a phase, of a worker: its calls
        for kind, group in phases:
            if kind is None:
                shares.append([group, *([] for _ in range(WORKERS - 1))])
                continue
            shares.append([[c.of(self._part(c.size(kind), w)) for c in group] for w in range(WORKERS)])
            if kind is Columns:
                shares.append([self._sums(group, w) for w in range(WORKERS)])
        self._alone = Tape([c for phase in shares for share in phase for c in share])
        self._lists = [self._with_waits([phase[w] for phase in shares]) for w in range(WORKERS)]
        self._shared = np.zeros(16, np.int64)  # arrivals; in another cache line, whether a worker gave up

    def _part(self, size: int, w: int) -> Part:
        first, end = (round(size * i / WORKERS / ALIGNED) * ALIGNED if i < WORKERS else size for i in (w, w + 1))
        return Part(first, end - first, functools.partial(self._moved, w))

    def _moved(self, w: int, x: np.ndarray) -> int:
        """Where a worker adds to x: the first one there, the others in a copy of all that x is a view of."""
        root = root_of(x)
        if id(root) not in self._own:
            self._own[id(root)] = root, [np.zeros_like(root) for _ in range(WORKERS - 1)]
        if w == 0:
            return address_of(x)
        return address_of(self._own[id(root)][1][w - 1]) + address_of(x) - address_of(root)

    def _sums(self, calls: list[Call], w: int) -> list[Call]:
        """A worker's part of adding up what the calls left."""
        roots = {id(root_of(a.array)): root_of(a.array) for c in calls for a in c.arguments if isinstance(a, Summed)}
        made = []
        for key, root in roots.items():
            for copy in self._own[key][1]:
                size, step = root.size, root.itemsize
                call = Call(_add(root.dtype.name), (Along(root, step), Along(copy, step), Elements(size)))
                made.append(call.of(self._part(size, w)))
        return made

    def _with_waits(self, phases: list[list[Call]]) -> tuple[np.ndarray, np.ndarray]:
        """Addresses of kernels and rows; 0 after every phase."""
        kernels = [[*(c.kernel.address for c in phase), 0] for phase in phases]
        rows = [[*(c.row.ctypes.data for c in phase), 0] for phase in phases]
        return np.array(sum(kernels, []), np.int64), np.array(sum(rows, []), np.int64)

    def play(self, times: int) -> None:
        """As ``Tape.play``, on all workers if it is worth starting them; none is left running whatever happens."""
        if times < SHORT:
            self._alone.play(times)
            return
        self._shared[...] = 0
        given = (times, address_of(self._shared), WORKERS, _yield())
        others = [threading.Thread(target=_player(), args=(*made, *given)) for made in self._lists[1:]]
        try:
            for thread in others:
                thread.start()
            _player()(*self._lists[0], *given)
        finally:
            self._shared[8] = 1
            for thread in others:
                if thread.ident is not None:
                    thread.join()


def _kind(call: Call) -> type[int] | None:
    return next((kind for kind in (Columns, Elements) if call.size(kind)), None)


def root_of(x: np.ndarray) -> np.ndarray:
    """The array that x is a view of."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def worth_it(calls: list[Call], work: int) -> bool:
    """Whether halves of these calls pay, given the floating-point operations of their products."""
    columns = [c.size(Columns) for c in calls if c.size(Columns)]
    roots = [root_of(a.array) for c in calls for a in c.arguments if isinstance(a, Summed)]
    whole = all(root.flags.c_contiguous and root.dtype.name in REALS for root in roots)
    return whole and work >= ENOUGH_WORK and min(columns, default=0) >= ENOUGH_EXAMPLES


@functools.cache
def _yield() -> int:
    """The address of the operating system's yield, int(void)."""
    function = ctypes.CDLL("kernel32").SwitchToThread if sys.platform == "win32" else ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
