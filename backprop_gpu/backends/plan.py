"""What a kernel set says of a step before it runs it: which implementation each operation takes, and what it allocates.

The operations themselves are in ``protocol.py``. A set that does not follow :class:`Explained` still trains; its plan
is then silent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..maths.activations import Activation
    from ..maths.losses import Loss
    from ..maths.optimizers import Optimizer
    from ..maths.schedules import Schedule


@dataclass(frozen=True)
class StepSpec:
    """What a training step is: the record that ``network.spec.step_spec`` reads off it, and all others read.

    It stands below the network because a kernel set chooses its implementations by it.

    ``m`` is the number of examples of one pass, ``accumulating``: does a step have several? ``activations``,
    ``dropout`` and ``batch_norm`` are from the input (0) to the logits (L), the last empty where none is normalized;
    ``form`` is ``delta``, "fused" or "literal"; ``predicting``: the forward pass alone. Others as ``TrainingStep`` and
    ``DenseNet`` take them.
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

    def operations(self) -> list[tuple[str, int | None]]:
        """The operations of a step in order, each with its layer."""
        normalized = {l for l, there in enumerate(self.batch_norm) if there}
        forward: list[tuple[str, int | None]] = []
        for l in self.layers:
            forward += [("dense", l), *([("batch_norm", l)] if l in normalized else [])]
        if self.predicting:
            return forward
        L, flat = len(self.sizes) - 1, [("penalty", self.penalized), ("global_norm", self.clipped), ("update", True)]
        found: list[tuple[str, int | None]] = [("advance", None), ("gather", None)]
        found += forward
        found.append(("output_delta", L))
        for l in reversed(self.layers):
            found += [("dense_vjp_params", l), *([("dense_vjp_input", l)] if l > 1 else [])]
            found += [("batch_norm_vjp", l - 1)] if l - 1 in normalized else []
        return found + [(name, None) for name, used in flat if used]


@dataclass(frozen=True)
class Choice:
    """An operation, its layer (None: of the whole step), what runs it, and why nothing faster (empty: it is the set's
    own)."""

    operation: str
    layer: int | None
    by: str
    why: str = ""


def choose(spec: StepSpec, by: str, reason: Callable[[str, int | None], str], fallback: str) -> list[Choice]:
    """A choice for each operation: ``by``, or ``fallback`` where there is a ``reason``."""
    found = []
    for operation, layer in spec.operations():
        why = reason(operation, layer)
        found.append(Choice(operation, layer, fallback if why else by, why))
    return found


def layer_of(operation: str, layer: int) -> int:
    """The layer whose activation an operation deals with."""
    return layer - 1 if operation == "dense_vjp_input" else layer


class Explained(Protocol):
    """A kernel set that can say beforehand what it will do."""

    def explain(self, spec: StepSpec) -> list[Choice]:
        """Every operation of ``spec.operations()``, and last ``capture``: how a recorded step is played."""

    def temporaries(self, spec: StepSpec) -> int | None:
        """The most bytes allocated at once beyond the step's buffers; None: what ``maths`` allocates."""
