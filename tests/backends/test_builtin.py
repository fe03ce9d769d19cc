"""A variant that goes by a built-in's name is computed by its own formula, in every kernel set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from support.small_nets import LOSS_CASES, rows, small_net

from backprop_gpu.backends.builtin import is_builtin
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.maths.activations import ACTIVATIONS, get_activation
from backprop_gpu.maths.losses import LOSSES, SquaredError, get_loss
from backprop_gpu.maths.optimizers import OPTIMIZERS, SGD, get_optimizer
from backprop_gpu.network.step import TrainingStep

SETS = [] if unavailable_reason() else ["native"]
TRIPLED = replace(
    ACTIVATIONS["tanh"],
    forward_function=lambda xp, Z: 3.0 * xp.tanh(Z),
    vjp_function=lambda xp, dA, Z, A: dA * (3.0 - A * A / 3.0),
)


@dataclass(frozen=True)
class Doubled(SquaredError):
    """Twice the squared error."""

    def value(self, xp: Any, Z: Any, Y: Any) -> Any:
        return 2.0 * super().value(xp, Z, Y)

    def delta(self, xp: Any, Z: Any, Y: Any) -> Any:
        return 2.0 * super().delta(xp, Z, Y)


@dataclass(frozen=True)
class Uphill(SGD):
    """SGD the other way."""

    def apply(self, xp: Any, theta: Any, grad: Any, state: Any, scalars: Any, *, decay: bool) -> Any:
        return super().apply(xp, theta, -grad, state, scalars, decay=decay)


def test_built_ins_are_shipped_and_variants_are_not() -> None:
    for name in ACTIVATIONS:
        assert is_builtin(get_activation(name))
    assert is_builtin(get_activation({"name": "leaky_relu", "slope": 0.3}))
    for name in LOSSES:
        given = {"name": name, "quantiles": [0.5]} if name == "quantile" else name
        assert is_builtin(get_loss(given))
    assert is_builtin(get_loss({"name": "grouped_cross_entropy", "groups": [2, 3]}))
    for name in OPTIMIZERS:
        assert is_builtin(get_optimizer(name))
    assert not any(map(is_builtin, (TRIPLED, Doubled(), Uphill())))


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "variant",
    [{"activation": TRIPLED}, {"loss": Doubled()}, {"optimizer": Uphill(learning_rate=0.1)}],
    ids=["activation", "loss", "optimizer"],
)
def test_a_variant_is_computed_by_its_own_formula(variant: dict[str, Any], dtype: str, kernels: str) -> None:
    def stepped(kind: str, given: dict[str, Any]) -> np.ndarray:
        given = {"activation": "tanh", "loss": "squared_error", "optimizer": SGD(learning_rate=0.1)} | given
        optimizer = given.pop("optimizer")
        net = small_net([4, 5, 2], dtype=dtype, kernels=kind, **given)
        step = TrainingStep(net, optimizer)
        for _ in range(2):
            step(net.upload_columns(rows(4)), net.upload_columns(LOSS_CASES["squared"][2]))
        return np.array(net.params.theta)

    want = stepped("reference", variant)
    assert np.max(np.abs(want - stepped("reference", {}))) > 1e-2
    np.testing.assert_allclose(stepped(kernels, variant), want, rtol=0.0, atol=1e-5 if dtype == "float32" else 1e-13)
