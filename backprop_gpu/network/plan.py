"""How much memory training will take on a device, computed before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from .._typing import Array
from ..backends.plan import StepSpec
from ..backends.protocol import Kernels
from ..backends.shapes import ShapeArray, ShapeBackend
from ..maths.normalization import part_sizes
from ..maths.optimizers import Optimizer
from .dense_net import BLOCK_ROWS, DenseNet
from .memory import FlatParams
from .spec import step_spec
from .step import TrainingStep


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device.

    Attributes
    ----------
    parameters, gradients, optimizer : int
        The flat vectors: weights and biases, their gradient, the optimizer's state.
    workspace : int
        Buffers of a pass for each number of examples that occurs (full, ragged).
    batches : int
        Buffers that batches are gathered into, and the epoch's table of numbers.
    data : int
        The data set and its order, if it is stored on the device.
    passing : int
        Peak allocation of operations while they run, in training or in an evaluation between epochs.
    """

    parameters: int
    gradients: int
    optimizer: int
    workspace: int
    batches: int
    data: int
    passing: int

    @property
    def total(self) -> int:
        """The peak."""
        return sum(asdict(self).values())

    @property
    def model(self) -> int:
        """What does not depend on the number of examples."""
        return self.parameters + self.gradients + self.optimizer

    def lines(self) -> dict[str, str]:
        """Every part and the total, for reading."""
        return {name: amount(n) for name, n in (asdict(self) | {"total": self.total}).items()}


def amount(n: int) -> str:
    """Bytes with three digits: ``"1.23 GB"`` (10^9)."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= 0.9995 * factor:
            return f"{n / factor:.3g} {unit}"
    return f"{n} bytes"


class _ShapeNet(DenseNet):
    """A network for abstract evaluation: its parameters have shapes but no values."""

    def _initial_parameters(self) -> dict[str, np.ndarray]:
        return {}

    def set_parameters(self, named: dict[str, np.ndarray]) -> None:
        """Nothing."""


class _Rows:
    """A data set without values, and buffers for batches of m of its rows."""

    def __init__(self, net: DenseNet, rows: int, m: int, weighted: bool) -> None:
        self.net, self.m, self.first = net, m, 0
        self._sources, self.buffers = self._made(rows, weighted), self._made(m, weighted)
        self._order = net.backend.zeros((rows,), "int64")
        self.X, self.Y, self.weights = (None if x is None else x.T for x in self.buffers)

    def _made(self, n: int, weighted: bool) -> list[Array]:
        net, zeros, classes = self.net, self.net.backend.zeros, self.net.loss.labels == "classes"
        Y = zeros((n, 1), "int64") if classes else zeros((n, net.sizes[-1]), net.dtype)
        return [zeros((n, net.sizes[0]), net.dtype), Y, zeros((n, 1), net.dtype) if weighted else None]

    @property
    def data(self) -> int:
        """Bytes of the data set."""
        return _shapes([*self._sources, self._order])

    def gather(self, counters: Array) -> None:
        """As ``BatchBuffers`` does."""
        for source, out in zip(self._sources, self.buffers, strict=True):
            if source is not None:
                self.net.kernels.gather(source, self._order, counters, self.m, out=out)


def shape_step(
    sizes: Iterable[int],
    dtype: str,
    optimizer: str | dict[str, Any] | Optimizer,
    step: Mapping[str, Any],
    **network: Any,
) -> TrainingStep:
    """A step for abstract evaluation: nothing is allocated for it."""
    net = _ShapeNet(list(sizes), dtype=dtype, device=ShapeBackend(), kernels="reference", **network)
    return TrainingStep(net, optimizer, **step)


def predict_memory(
    step: TrainingStep,
    m: int,
    *,
    kernels: Kernels,
    rows: int = 0,
    weighted: bool = False,
    micro_batch: int | None = None,
    resident: bool = True,
    evaluated: int = 0,
) -> MemoryPlan:
    """What ``Trainer.fit`` will allocate on the device, to within 10%.

    Parameters
    ----------
    step : TrainingStep
        What :func:`shape_step` returns.
    m : int
        Examples in a batch.
    kernels : Kernels
        The set that will run; it reports what it saves of each layer and what it allocates.
    rows : int, default 0
        Examples in the data set; 0 means one batch.
    weighted : bool, default False
        With example weights?
    micro_batch : int, optional
    resident : bool, default True
        Whether the data set is stored on the device.
    evaluated : int, default 0
        Rows of the largest set that is evaluated between epochs.
    """
    net, device, rows, dtype = step.net, step.net.backend, rows or m, step.net.dtype
    assert isinstance(device, ShapeBackend)
    m = min(m, rows)
    sizes_of_batches = part_sizes(rows, m, even=any(net.batch_norm))
    sources, m = [_Rows(net, rows, size, weighted) for size in dict.fromkeys(sizes_of_batches)], sizes_of_batches[0]
    batches = len(sizes_of_batches)
    table, values = device.zeros((batches, step.n_step_scalars), dtype), device.zeros((batches,), dtype)
    before = device.meter.live
    for source in sources:
        step.reserve(source.m, micro_batch)
    workspace = device.meter.live - before + sum(_buffer_bytes(net, kernels, ws.m) for ws in step.workspaces)
    spec = step_spec(step, m, micro_batch, weighted)
    own = kernels.workspace_bytes(spec) if hasattr(kernels, "workspace_bytes") else 0
    if own is None:
        programs = [step.program(table, values, source, micro_batch) for source in sources]
        own = device.passing(lambda: [program() for program in [*programs, *programs]])
    return MemoryPlan(
        parameters=net.params.theta.nbytes,
        gradients=net.params.grad.nbytes,
        optimizer=step.optimizer_bytes,
        workspace=workspace,
        batches=_shapes([table, values, *(rows for source in sources for rows in source.buffers)]),
        data=sources[0].data if resident else 0,
        passing=max(own, _evaluation(spec, net, kernels, min(evaluated, BLOCK_ROWS))),
    )


def _buffer_bytes(net: DenseNet, kernels: Kernels, m: int, train: bool = True) -> int:
    """Bytes of the buffers that a kernel set makes for m examples, extrapolated from those for one and for two."""

    def made(examples: int) -> int:
        on_shapes, net.kernels = net.kernels, kernels
        try:
            return _nbytes(vars(net.workspace(examples, train=train)))
        finally:
            net.kernels = on_shapes

    one = made(1)
    return one + (m - 1) * (made(2) - one)


def _evaluation(spec: StepSpec, net: DenseNet, kernels: Kernels, m: int) -> int:
    """Bytes of one pass of predictions over m rows."""
    if not m:
        return 0
    device: Any = net.backend
    forward = replace(spec, m=m, dropout=(0.0,) * len(spec.sizes), predicting=True)
    own = kernels.workspace_bytes(forward) if hasattr(kernels, "workspace_bytes") else 0

    def run() -> None:
        ws = net.workspace(m, train=False)
        ws.A[0] = device.zeros((m, net.sizes[0]), net.dtype).T
        if own is None:
            net.forward_members(ws)

    return int(device.passing(run)) + _buffer_bytes(net, kernels, m, train=False) + (own or 0)


def _nbytes(x: Any) -> int:
    """Bytes of every real array in a workspace; arrays without data are counted by the device already."""
    if isinstance(x, ShapeArray):
        return 0
    if isinstance(x, list | tuple | dict):
        return sum(_nbytes(part) for part in (x.values() if isinstance(x, dict) else x))
    if is_dataclass(x) or type(x).__module__ == FlatParams.__module__:
        return sum(_nbytes(part) for part in vars(x).values())
    return int(getattr(x, "nbytes", 0))


def _shapes(arrays: Iterable[Array]) -> int:
    return sum(x.nbytes for x in arrays if x is not None)
