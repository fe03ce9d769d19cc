"""Where in a step the first NaN or infinity comes from: the step once more, call by call, on the same kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._typing import Array, Program
from ..backends.protocol import Kernels
from ..maths.losses import one_hot
from .input_stage import TENSORS
from .memory import layer_of
from .step import TrainingStep

WORDS = {
    "gather": "input",
    "dense": "forward",
    "batch_norm": "batch normalization",
    "parametric": "parametric activation",
    "parametric_vjp": "backward of the parametric activation",
    "scaling": "scaling of the inputs",
    "scaling_vjp": "backward of the scaling of the inputs",
    "periodic": "embedding of the inputs",
    "periodic_vjp": "backward of the embedding of the inputs",
    "output_delta": "loss",
    "dense_vjp_input": "backward",
    "dense_vjp_params": "backward",
    "batch_norm_vjp": "backward of batch normalization",
    "member_weights": "weights of a member",
    "member_weights_vjp": "backward to the weights that members share",
    "penalty": "penalty",
    "global_norm": "norm of the gradient",
    "update": "update",
}


@dataclass(frozen=True)
class NonFinite:
    """The first number of a step that is NaN or infinite.

    Attributes
    ----------
    operation : str
        A method of ``Kernels``: ``"dense"``, ``"output_delta"``, ``"update"`` and so on; ``"gather"`` for what the data
        or the schedule brought in.
    layer : int or None
        From 1; None where the number is of no layer.
    tensor : str
        As in the notation: ``"Z2"``, ``"A2"``, ``"J"``, ``"L"`` (the losses of the examples), ``"dZ2"``, ``"dW2"``,
        ``"db2"``, ``"W2"`` (after the update), ``"v of W2"`` (the optimizer's state).
    index : tuple of int
        Where in the tensor, from 0; in a matrix of units and examples the example is counted within its batch.
    example : int or None
        That example, where the tensor has examples.
    value : float
        NaN, inf or -inf.
    """

    operation: str
    layer: int | None
    tensor: str
    index: tuple[int, ...]
    example: int | None
    value: float

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        layer = "" if self.layer is None else f", layer {self.layer}"
        return f"{self.value} in {self.tensor}{where} ({WORDS[self.operation]}{layer})"


class _Found(Exception):
    """Ends the step where its first number is found."""

    def __init__(self, found: NonFinite) -> None:
        super().__init__()
        self.found = found


def find_non_finite(step: TrainingStep, program: Program) -> NonFinite | None:
    """Run one step's program call by call, and stop at the first call that leaves NaN or infinity.

    The program is stopped in its middle, and the parameters may have been written: the caller brings the state back.

    Parameters
    ----------
    program : callable
        Of ``step.program(...)``, with the parameters and counters as they are before the step.

    Returns
    -------
    NonFinite or None
        None if every number is finite.
    """
    net = step.net
    kernels = net.kernels
    net.kernels = _Watched(step, kernels)
    try:
        with net.backend.activate(), np.errstate(all="ignore"):
            program()
    except _Found as stopped:
        return stopped.found
    finally:
        net.kernels = kernels
    return None


class _Watched:
    """A kernel set around another, which looks at everything that an operation has written."""

    def __init__(self, step: TrainingStep, kernels: Any) -> None:
        self._step, self._kernels, self._net = step, kernels, step.net
        p = step.net.params
        own = [xs for part in step.net.parts for xs in (part.W, part.dW)]
        own.append([p.tensors.get(f"alpha{l}") for l in range(step.net.L)])
        self._layers = {id(x): l for xs in (p.W, p.dW, p.gamma, *own) for l, x in enumerate(xs) if x is not None}
        self._first, self._next = 0, 0  # of the examples of this micro-batch and of the next one
        self._passes = 0  # of members

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._kernels, name)
        look: Callable[..., None] | None = getattr(type(self), f"_{name}", None)
        if look is None:
            return operation
        before: Callable[..., None] | None = getattr(type(self), f"_before_{name}", None)
        signature = inspect.signature(getattr(Kernels, name))

        def call(*args: Any, **named: Any) -> None:
            given = signature.bind(self, *args, **named).arguments
            if before is not None:
                before(self, given)
            operation(*args, **named)
            look(self, given)

        return call

    def _layer(self, x: Array) -> int:
        """The layer of a weight, its derivative or a gamma, which may be a member's."""
        if id(x) not in self._layers:  # buffers that were made after this was
            for ws in self._step.workspaces:
                self._layers |= {id(x): l for xs in (ws.member_W, ws.member_dW) for l, x in xs.items()}
        return self._layers[id(x)]

    # -- what each operation reads that no other has written, and what it writes ---------------------------------------

    def _parametric(self, given: Mapping[str, Any]) -> None:
        l = self._layer(given["alpha"])
        self._look("parametric", l, f"A{l}", given["A"], examples=True)

    def _parametric_vjp(self, given: Mapping[str, Any]) -> None:
        l = self._layer(given["alpha"])
        for name in ("dalpha", "dZ", "db"):
            self._look("parametric_vjp", l, f"{name}{l}", given[name], examples=name == "dZ")

    def _look_at_inputs(self, X: Array) -> None:
        """X of the next micro-batch."""
        self._first, self._next = self._next, self._next + X.shape[1]
        self._look("gather", None, "X", X, examples=True)

    def _before_scaling(self, given: Mapping[str, Any]) -> None:
        if self._net.inputs.periodic is None:
            self._look_at_inputs(given["X"])

    def _scaling(self, given: Mapping[str, Any]) -> None:
        self._look("scaling", 0, "H0", given["H"], examples=True)

    def _scaling_vjp(self, given: Mapping[str, Any]) -> None:
        self._look("scaling_vjp", 0, "dscale0", given["ds"])
        self._look("scaling_vjp", 0, "dE0", given["dX"], examples=True)

    def _before_periodic(self, given: Mapping[str, Any]) -> None:
        self._look_at_inputs(given["X"])

    def _periodic(self, given: Mapping[str, Any]) -> None:
        self._look("periodic", 0, "P0", given["P"], examples=True)
        self._look("periodic", 0, "E0", given["E"], examples=True)

    def _periodic_vjp(self, given: Mapping[str, Any]) -> None:
        names = zip(("dw", "db", "dV", "dc"), TENSORS, strict=True)
        for name, kind in names:
            self._look("periodic_vjp", 0, f"d{kind}0", given[name])

    def _before_dense(self, given: Mapping[str, Any]) -> None:
        if self._layer(given["W"]) == 1 and not self._net.inputs.there:
            self._passes += 1
            if (self._passes - 1) % self._net.members == 0:
                self._look_at_inputs(given["A_prev"])

    def _dense(self, given: Mapping[str, Any]) -> None:
        l = self._layer(given["W"])
        Z = self._kernels.debug_tensors(given["saved"]).get("Z")
        self._look("dense", l, f"Z{l}", Z, examples=True)
        A = self._host(given["A"])
        wrong = np.argwhere(~np.isfinite(A))
        if not wrong.size:
            return
        i, j = wrong[0]
        z = self._host(given["W"])[i] @ self._host(given["A_prev"])[:, j] + self._host(given["b"])[i, 0]
        linear = l == self._net.L or self._net.batch_norm[l] or self._net.parametric[l]
        self._raise("dense", l, f"Z{l}" if linear or not np.isfinite(z) else f"A{l}", (i, j), True, A[i, j])

    def _batch_norm(self, given: Mapping[str, Any]) -> None:
        l = self._layer(given["gamma"])
        for name, tensor in (("inverse_std", "inverse_std"), ("X", "X"), ("mean", "mean"), ("variance", "variance")):
            self._look("batch_norm", l, f"{tensor}{l}", given[name], examples=name == "X")
        self._look("batch_norm", l, f"{'U' if self._net.parametric[l] else 'A'}{l}", given["A"], examples=True)

    def _before_output_delta(self, given: Mapping[str, Any]) -> None:
        for name in ("Y", "weights"):
            self._look("gather", None, name, given[name], examples=True)

    def _output_delta(self, given: Mapping[str, Any]) -> None:
        L = self._net.L
        J = self._host(given["value"])
        if not np.isfinite(J[0]):
            losses = self._losses(given)
            wrong = np.flatnonzero(~np.isfinite(losses))
            if wrong.size:
                self._raise("output_delta", L, "L", (0, wrong[0]), True, losses[wrong[0]])
            self._raise("output_delta", None, "J", (), False, J[0])
        self._look("output_delta", L, f"dZ{L}", given["dZ"], examples=True)
        self._look("output_delta", L, f"db{L}", given["db"])

    def _losses(self, given: Mapping[str, Any]) -> np.ndarray:
        """L of each example, weighted (an example of weight 0 counts for nothing, whatever it holds)."""
        loss, Z, Y = given["loss"], self._host(given["Z"]), self._host(given["Y"])
        if loss.labels == "classes" and Y.shape[0] != Z.shape[0]:
            Y = one_hot(np, Y, np.arange(Z.shape[0])[:, None], Z.dtype)
        found = np.asarray(loss.value(np, Z, Y)).reshape(-1)
        weights = given["weights"]
        return found if weights is None else np.where(self._host(weights).reshape(-1) == 0.0, 0.0, found)

    def _dense_vjp_input(self, given: Mapping[str, Any]) -> None:
        l = self._layer(given["W"]) - 1
        if l == 0:
            self._look("dense_vjp_input", 0, "dH0", given["dZ_prev"], examples=True)
            return
        if self._net.parametric[l]:
            self._look("dense_vjp_input", l, f"dA{l}", given["dZ_prev"], examples=True)
            return
        name = "dU" if self._net.batch_norm[l] else "dZ"
        self._look("dense_vjp_input", l, f"{name}{l}", given["dZ_prev"], examples=True)
        self._look("dense_vjp_input", l, f"db{l}", given["db_prev"])

    def _dense_vjp_params(self, given: Mapping[str, Any]) -> None:
        l = self._layer(given["dW"])
        self._look("dense_vjp_params", l, f"dW{l}", given["dW"])

    def _batch_norm_vjp(self, given: Mapping[str, Any]) -> None:
        l = self._layer(given["gamma"])
        self._look("batch_norm_vjp", l, f"dZ{l}", given["dZ"], examples=True)
        self._look("batch_norm_vjp", l, f"dgamma{l}", given["dgamma"])

    def _member_weights(self, given: Mapping[str, Any]) -> None:
        l = self._layer(given["out"])
        self._look("member_weights", l, f"W{l}", given["out"])

    def _member_weights_vjp(self, given: Mapping[str, Any]) -> None:
        l = self._layer(given["dW"])
        for name, tensor in (("dW", "W"), ("dr", "R"), ("ds", "S")):
            self._look("member_weights_vjp", l, f"d{tensor}{l}", given[name])

    def _penalty(self, given: Mapping[str, Any]) -> None:
        self._look_flat("penalty", "d{}", self._net.params.grad)
        self._look("penalty", None, "J", given["value"])

    def _global_norm(self, given: Mapping[str, Any]) -> None:
        self._look("global_norm", None, "factor", given["factor"])  # the norm may be too large for its type

    def _before_update(self, given: Mapping[str, Any]) -> None:
        self._look("gather", None, "the optimizer's scalars", given["scalars"])

    def _update(self, given: Mapping[str, Any]) -> None:
        for name, vector in zip(self._step.optimizer.state, self._step.optimizer_state, strict=True):
            self._look_flat("update", f"{name} of {{}}", vector)
        self._look_flat("update", "{}", self._net.params.theta)

    # -- looking -------------------------------------------------------------------------------------------------------

    def _host(self, x: Array) -> np.ndarray:
        return self._net.backend.to_host(x)

    def _look(self, operation: str, layer: int | None, tensor: str, x: Array | None, examples: bool = False) -> None:
        """Raise if an array has a number that is not finite; ``examples``: its last axis is that of examples."""
        if x is not None:
            self._look_host(operation, layer, tensor, self._host(x), examples)

    def _look_flat(self, operation: str, tensor: str, vector: Array) -> None:
        """The same for a vector of all parameters; ``tensor`` has a place for the parameter's name."""
        for name, x in self._net.params.named(self._host(vector)).items():
            self._look_host(operation, layer_of(name), tensor.format(name), x, examples=False)

    def _look_host(self, operation: str, layer: int | None, tensor: str, x: np.ndarray, examples: bool) -> None:
        wrong = np.argwhere(~np.isfinite(x))
        if wrong.size:
            index = tuple(wrong[0].tolist())
            self._raise(operation, layer, tensor, index, examples, x[index])

    def _raise(
        self, operation: str, layer: int | None, tensor: str, index: tuple[int, ...], examples: bool, value: Any
    ) -> None:
        place = [int(i) for i in index]
        if examples:
            place[-1] += self._first
        raise _Found(NonFinite(operation, layer, tensor, tuple(place), place[-1] if examples else None, float(value)))
