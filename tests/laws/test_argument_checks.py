"""The law of the gate: an operation whose buffers do not fit is refused, by every kernel set, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases

from backprop_gpu.backends import argument_checks
from backprop_gpu.backends.argument_checks import CHECKS
from backprop_gpu.backends.protocol import Dropout
from backprop_gpu.backends.select import get_backend
from backprop_gpu.errors import BackpropError, ConfigError, ShapeError
from backprop_gpu.maths.activations import get_activation
from backprop_gpu.maths.losses import get_loss
from backprop_gpu.maths.optimizers import get_optimizer

N, K, M, SIZE = 6, 5, 8, 40
J, H = 2, 3  # inputs with a periodic embedding, and their waves
FLOATS, INTS = "float32", "int64"
OTHER = {"float32": "float64", "int64": "float32"}

# Of every operation: its arrays with shape and dtype, and what else it takes. Unlike extents, so that none is mistaken.
OPERATIONS: dict[str, dict[str, Any]] = {
    "dense": {"W": (N, K), "A_prev": (K, M), "b": (N, 1), "A": (N, M)},
    "dense_vjp_input": {
        "W": (N, K),
        "dZ": (N, M),
        "A_prev": (K, M),
        "scale": (1,),
        "dZ_prev": (K, M),
        "db_prev": (K, 1),
    },
    "dense_vjp_params": {"dZ": (N, M), "A_prev": (K, M), "scale": (1,), "dW": (N, K)},
    "batch_norm": {
        **dict.fromkeys(("gamma", "beta", "mean", "variance", "inverse_std"), (N, 1)),
        "Z": (N, M),
        "weights": (1, M),
        "A": (N, M),
        "X": (N, M),
    },
    "batch_norm_vjp": {
        **dict.fromkeys(("inverse_std", "gamma", "dgamma"), (N, 1)),
        "dU": (N, M),
        "X": (N, M),
        "weights": (1, M),
        "scale": (1,),
        "dZ": (N, M),
    },
    "member_weights": {"W": (N, K), "r": (K,), "s": (N,), "out": (N, K)},
    "member_weights_vjp": {
        **dict.fromkeys(("G", "W", "dW"), (N, K)),
        **dict.fromkeys(("r", "dr"), (K,)),
        **dict.fromkeys(("s", "ds"), (N,)),
    },
    "parametric": {"alpha": (N, 1), **dict.fromkeys(("Z", "A", "D", "S"), (N, M))},
    "parametric_vjp": {
        **dict.fromkeys(("dA", "D", "S", "dZ"), (N, M)),
        **dict.fromkeys(("alpha", "dalpha", "db"), (N, 1)),
        "scale": (1,),
    },
    "scaling": {"X": (K, M), "s": (K, 1), "H": (K, M)},
    "scaling_vjp": {
        **dict.fromkeys(("dH", "X", "dX"), (K, M)),
        **dict.fromkeys(("s", "ds"), (K, 1)),
        "scale": (1,),
    },
    "periodic": {
        "X": (K, M),
        **dict.fromkeys(("w", "b"), (J, H)),
        "V": (J * N, H),
        "c": (J * N, 1),
        "E": (J * N, M),
        **dict.fromkeys(("P", "Q"), (J * H, M)),
    },
    "periodic_vjp": {
        "dE": (J * N, M),
        "X": (K, M),
        **dict.fromkeys(("P", "Q"), (J * H, M)),
        **dict.fromkeys(("V", "dV"), (J * N, H)),
        "scale": (1,),
        **dict.fromkeys(("dw", "db"), (J, H)),
        "dc": (J * N, 1),
    },
    "output_delta": {
        "Z": (N, M),
        "Y": (N, M),
        "weights": (1, M),
        "inverse_denominator": (1,),
        "dZ": (N, M),
        "db": (N, 1),
        "value": (1,),
    },
    "penalty": {"theta": (SIZE,), "grad": (SIZE,), "l1": (1,), "l2": (1,), "value": (1,)},
    "global_norm": {"grad": (SIZE,), "norm": (1,), "factor": (1,)},
    "update": {"theta": (SIZE,), "grad": (SIZE,), "m": (SIZE,), "v": (SIZE,), "scalars": (2,), "factor": (1,)},
    "gather": {"source": (20, K), "order": (20,), "counters": (2,), "out": (M, K)},
    "advance": {"counters": (2,), "table": (3, 5), "values": (3,), "step_scalars": (5,), "value": (1,)},
}
# Axes of any extent.
FREE = {
    ("periodic", "X"): 0,
    ("periodic_vjp", "X"): 0,
    ("gather", "source"): 0,
    ("gather", "order"): 0,
    ("gather", "out"): 0,
    ("global_norm", "grad"): 0,
}


def dtype_of(name: str) -> str:
    return INTS if name in ("order", "counters") else FLOATS


class Calls:
    """Calls of a kernel set's operations with buffers of given shapes and dtypes."""

    def __init__(self, case: Case) -> None:
        self.case, self.kernels = case, case.kernels()

    def buffers(self, operation: str, **changed: tuple[tuple[int, ...], str]) -> dict[str, Any]:
        made = {name: (shape, dtype_of(name)) for name, shape in OPERATIONS[operation].items()} | changed
        return {name: self.case.put(np.ones(shape), dtype) for name, (shape, dtype) in made.items()}

    def layer(self, name: str, n: int, k: int, m: int = M, rate: float = 0.0) -> dict[str, Any]:
        put, dropout = self.case.put, None
        if rate:
            quads, examples = np.arange(-(-n // 4))[:, None], np.arange(m)[None, :]
            places = put(np.array([0])), put(np.array([0]))
            dropout = Dropout(rate, 1, 1, put(quads), put(examples), *places)
        g = get_activation("gelu")
        saved = self.kernels.saved(n, k, m, FLOATS, g, dropout)
        return {f"activation{name}": g, f"dropout{name}": dropout, f"saved{name}": saved}

    def run(self, operation: str, buffers: dict[str, Any], **replaced: Any) -> None:
        """Call; ``replaced``: in the place of what is no array."""
        given, other = dict(buffers), dict[str, Any]()
        if operation in ("dense", "batch_norm", "parametric"):
            other = self.layer("", N, K)
        elif operation == "dense_vjp_input":
            other = {**self.layer("_prev", K, 3), "accumulate": False}
            own = {"W": np.ones((K, 3)), "A_prev": np.ones((3, M)), "b": np.ones((K, 1)), "A": np.ones((K, M))}
            forward = {name: self.case.put(x, FLOATS) for name, x in own.items()}
            self.kernels.dense(**forward, activation=other["activation_prev"], dropout=None, saved=other["saved_prev"])
        elif operation in ("dense_vjp_params", "batch_norm_vjp", "scaling_vjp", "periodic_vjp"):
            other = {"accumulate": False}
        elif operation == "parametric_vjp":
            other = {"accumulate": False, "accumulate_b": False}
        elif operation == "member_weights_vjp":
            other = {"accumulate": False, "accumulate_own": False}
        elif operation == "output_delta":
            other = {"loss": get_loss("squared_error"), "form": "fused", "early": True, "accumulate": False}
        elif operation == "global_norm":
            other = {"max_norm": 1.0}
        elif operation == "update":
            other = {"optimizer": get_optimizer("adam"), "decay": False, "state": [given.pop("m"), given.pop("v")]}
        elif operation == "gather":
            given["counters"] *= 0
            other = {"stride": M}
        elif operation == "advance":
            given["counters"] *= 0
        getattr(self.kernels, operation)(**given, **(other | replaced))


def faults(operation: str) -> list[tuple[str, tuple[int, ...], str]]:
    """(array, shape, dtype) that do not fit: each extent one less and one more, a dimension more, another dtype."""
    found = []
    for name, shape in OPERATIONS[operation].items():
        own = dtype_of(name)
        for axis in range(len(shape)):
            if FREE.get((operation, name)) != axis:
                for step in (-1, 1):
                    changed = tuple(n + step * (i == axis) for i, n in enumerate(shape))
                    found.append((name, changed, own))
        found.append((name, (*shape, 1), own))
        if operation != "global_norm" or name != "grad":
            found.append((name, shape, OTHER[own]))
    return found


def test_every_operation_is_checked() -> None:
    assert set(OPERATIONS) == set(CHECKS)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("case", cases())
def test_buffers_that_do_not_fit_are_refused(case: Case, operation: str) -> None:
    calls = Calls(case)
    with case.backend.activate():
        calls.run(operation, calls.buffers(operation))  # which fit
        for name, shape, dtype in faults(operation):
            buffers = calls.buffers(operation, **{name: (shape, dtype)})
            before = {key: case.get(x) for key, x in buffers.items() if key != "counters"}
            with pytest.raises(ShapeError, match=operation):
                calls.run(operation, buffers)
            for key, x in before.items():
                np.testing.assert_array_equal(case.get(buffers[key]), x, err_msg=f"{name} {shape} {dtype}: {key}")


def refused(error: type[BackpropError], call: Callable[[], None]) -> None:
    with pytest.raises(error):
        call()


@pytest.mark.parametrize("case", cases())
def test_what_belongs_to_no_buffer_is_checked_too(case: Case) -> None:
    """A loss for other outputs, what was saved for other examples, dropout of other units, missing state, a batch
    longer than its stride.
    """
    calls = Calls(case)

    def run(operation: str, **replaced: Any) -> Callable[[], None]:
        return lambda: calls.run(operation, calls.buffers(operation), **replaced)

    with case.backend.activate():
        for groups in ([3, 4], [3], [3, 9], [6, 1]):
            loss = get_loss({"name": "grouped_cross_entropy", "groups": groups})
            refused(ConfigError, run("output_delta", loss=loss))
        quantiles = get_loss({"name": "quantile", "quantiles": [0.1, 0.2, 0.3, 0.9]})
        refused(ConfigError, run("output_delta", loss=quantiles))
        for n, m in ((N + 4, M), (N, M - 1)):
            refused(ShapeError, run("dense", dropout=calls.layer("", n, K, m, 0.5)["dropout"]))
            saved = calls.layer("", n, K, m)["saved"]
            if any(hasattr(x, "shape") and len(x.shape) == 2 for x in vars(saved).values()):  # made beforehand
                refused(ShapeError, run("dense", saved=saved))
        refused(ShapeError, run("update", state=[]))
        refused(ShapeError, run("gather", stride=M - 1))
        labels = calls.buffers("output_delta", Y=((1, M), INTS))
        calls.run("output_delta", labels, loss=get_loss("categorical_cross_entropy"))
        refused(ShapeError, lambda: calls.run("output_delta", labels))


def test_a_captured_program_is_checked_when_it_runs_first_and_calls_outside_of_it_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its buffers are the same each time. One whose first run is refused is checked again."""
    checked = list[str]()
    check = argument_checks._shape_of
    monkeypatch.setattr(argument_checks, "_shape_of", lambda *given: checked.append(given[0]) or check(*given))
    kernels = get_backend("numpy").kernels("reference")
    counters, table, values, step_scalars = np.array([-1, 0]), np.ones((4, 3)), np.zeros(4), np.zeros(3)
    value = {"value": np.zeros(2)}

    def step() -> None:
        kernels.advance(counters, table, values, step_scalars=step_scalars, **value)

    replay = kernels.capture(step)
    refused(ShapeError, lambda: replay(1))
    value["value"] = np.zeros(1)
    replay(3)
    assert checked == ["advance"] * 2
    step()
    assert checked == ["advance"] * 3
    assert counters.tolist() == [3, 4]
