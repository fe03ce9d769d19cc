"""What a kernel set reports about a step before running it: the implementation of each operation, and its workspace.

The operations themselves are in ``protocol.py``. A set that does not implement :class:`ReportsDispatch` still trains;
``devices --plan`` then lists no implementations for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..maths.activations import Activation
    from ..maths.losses import Loss
    from ..maths.optimizers import Optimizer
    from ..maths.schedules import Schedule


@dataclass(frozen=True)
class StepSpec:
    """All settings of a training step, made by ``network.spec.step_spec``.

    It is defined here, below the network, because kernel sets choose their implementations by it.

    ``m`` is the number of examples in one pass; ``accumulating``: whether a step consists of several passes.
    ``activations``, ``dropout``, ``batch_norm`` and ``parametric`` go from the input (0) to the logits (L); the last
    two are empty if no layer is so. ``form`` is the step's ``delta``, "fused" or "literal"; ``predicting``: the forward
    pass alone. The other fields are arguments of ``TrainingStep`` and ``DenseNet``.
    """

    sizes: tuple[int, ...]
    m: int
    dtype: str
    activations: tuple[Activation, ...]
    dropout: tuple[float, ...]
    loss: Loss
    form: str
    optimizer: Optimizer
    schedule: Schedule
    total_steps: int
    seed: int
    one_over_m: str
    reduction: str
    l1: float
    l2: float
    penalty_over: str
    clip_norm: float | None
    accumulating: bool
    weighted: bool
    batch_norm: tuple[bool, ...]
    predicting: bool = False
    learning_rate_factors: tuple[tuple[str, float], ...] = ()
    parametrization: str = "standard"
    input_scaling: bool = False
    members: int = 1
    adapters: str = "first"
    periodic_embedding: tuple[tuple[str, Any], ...] = ()

    parametric: tuple[bool, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers that enter the first dense layer, and units of each layer."""
        own = dict(self.periodic_embedding)
        return (self.sizes[0] + own.get("columns", 0) * own.get("outputs", 0), *self.sizes[1:])

    @property
    def penalized(self) -> bool:
        """Whether there is a penalty on the weights."""
        return bool(self.l1 or self.l2)

    @property
    def clipped(self) -> bool:
        """Whether the gradient's norm is limited."""
        return self.clip_norm is not None

    @property
    def layers(self) -> range:
        """1 .. L."""
        return range(1, len(self.sizes))

    @property
    def adapted(self) -> range:
        """Layers whose weights the members of an ensemble share through adapters."""
        last = {"first": 1, "all": len(self.sizes) - 2, "none": 0}[self.adapters]
        return range(1, 1 + (last if self.members > 1 else 0))

    def operations(self) -> list[tuple[str, int | None]]:
        """The operations of a step in order, each with its layer; of an ensemble, those of one of its members."""
        normalized = {l for l, there in enumerate(self.batch_norm) if there}
        mixed = {l for l, there in enumerate(self.parametric) if there}
        embedded, stage = bool(self.periodic_embedding), bool(self.input_scaling or self.periodic_embedding)
        forward: list[tuple[str, int | None]] = [("periodic", 0)] if embedded else []
        forward += [("scaling", 0)] * stage
        for l in self.layers:
            forward += [("member_weights", l)] if l in self.adapted else []
            forward += [("dense", l), *([("batch_norm", l)] if l in normalized else [])]
            forward += [("parametric", l)] if l in mixed else []
        if self.predicting:
            return forward
        L, flat = len(self.sizes) - 1, [("penalty", self.penalized), ("global_norm", self.clipped), ("update", True)]
        found: list[tuple[str, int | None]] = [("advance", None), ("gather", None)]
        found += forward
        found.append(("output_delta", L))
        for l in reversed(self.layers):
            found += [("dense_vjp_params", l), *([("dense_vjp_input", l)] if l > 1 else [])]
            found += [("parametric_vjp", l - 1)] if l - 1 in mixed else []
            found += [("batch_norm_vjp", l - 1)] if l - 1 in normalized else []
        found += [("dense_vjp_input", 1)] * stage + [("scaling_vjp", 0)] * self.input_scaling
        found += [("periodic_vjp", 0)] * embedded
        found += [("member_weights_vjp", l) for l in self.adapted]
        return found + [(name, None) for name, used in flat if used]


@dataclass(frozen=True)
class KernelChoice:
    """What runs an operation.

    Attributes
    ----------
    operation : str
    layer : int or None
        None: an operation of the whole step.
    by : str
        What runs it.
    why : str
        Why no kernel of the set runs it; empty if one does.
    """

    operation: str
    layer: int | None
    by: str
    why: str = ""


def choose_kernels(
    spec: StepSpec, by: str, reason: Callable[[str, int | None], str], fallback: str
) -> list[KernelChoice]:
    """Choose ``by`` for each operation, or ``fallback`` where ``reason`` gives a reason."""
    found = []
    for operation, layer in spec.operations():
        why = reason(operation, layer)
        found.append(KernelChoice(operation, layer, fallback if why else by, why))
    return found


def layer_of(operation: str, layer: int) -> int:
    """The layer whose activation an operation computes."""
    return layer - 1 if operation == "dense_vjp_input" else layer


class ReportsDispatch(Protocol):
    """A kernel set that can report beforehand what it will run and allocate."""

    def dispatch_report(self, spec: StepSpec) -> list[KernelChoice]:
        """What runs each operation of ``spec.operations()`` and, last, ``capture``: how a recorded step is run."""

    def workspace_bytes(self, spec: StepSpec) -> int | None:
        """Peak bytes allocated beyond the step's buffers; None: what the formulas of ``maths`` allocate."""
