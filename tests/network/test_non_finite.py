"""The first NaN or infinity of a step is named: operation, layer, tensor, index and example."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.poison import PoisonedKernels
from support.small_nets import small_net

from backprop_gpu.maths.ledger import Denominator
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.non_finite import NonFinite, find_non_finite
from backprop_gpu.network.step import TrainingStep

M, SIZES = 6, [4, 5, 6, 2]
RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(M, 4)), RNG.normal(size=(M, 2))
SETTINGS: dict[str, Any] = {"l2": 0.1, "clip_norm": 10.0}

# What is spoiled: operation, output, call of the step, index; and what is to be named: layer, tensor, index.
# The middle layer is normalized. The flat vector begins with W3 (2, 6); a step has two updates, of weights and biases.
PLACES: list[tuple[str, str, int, tuple[int, ...], int | None, str, tuple[int, ...]]] = [
    ("dense", "A", 0, (2, 3), 1, "A1", (2, 3)),
    ("dense", "A", 1, (4, 1), 2, "Z2", (4, 1)),
    ("dense", "A", 2, (1, 5), 3, "Z3", (1, 5)),
    ("batch_norm", "inverse_std", 0, (3, 0), 2, "inverse_std2", (3, 0)),
    ("batch_norm", "X", 0, (5, 2), 2, "X2", (5, 2)),
    ("batch_norm", "mean", 0, (1, 0), 2, "mean2", (1, 0)),
    ("batch_norm", "variance", 0, (1, 0), 2, "variance2", (1, 0)),
    ("batch_norm", "A", 0, (0, 4), 2, "A2", (0, 4)),
    ("output_delta", "value", 0, (0,), None, "J", ()),
    ("output_delta", "dZ", 0, (1, 2), 3, "dZ3", (1, 2)),
    ("output_delta", "db", 0, (1, 0), 3, "db3", (1, 0)),
    ("dense_vjp_params", "dW", 0, (1, 4), 3, "dW3", (1, 4)),
    ("dense_vjp_params", "dW", 1, (5, 3), 2, "dW2", (5, 3)),
    ("dense_vjp_params", "dW", 2, (3, 0), 1, "dW1", (3, 0)),
    ("dense_vjp_input", "dZ_prev", 0, (5, 5), 2, "dU2", (5, 5)),
    ("dense_vjp_input", "db_prev", 0, (2, 0), 2, "db2", (2, 0)),
    ("dense_vjp_input", "dZ_prev", 1, (4, 0), 1, "dZ1", (4, 0)),
    ("dense_vjp_input", "db_prev", 1, (4, 0), 1, "db1", (4, 0)),
    ("batch_norm_vjp", "dZ", 0, (3, 3), 2, "dZ2", (3, 3)),
    ("batch_norm_vjp", "dgamma", 0, (5, 0), 2, "dgamma2", (5, 0)),
    ("penalty", "grad", 0, (7,), 3, "dW3", (1, 1)),
    ("penalty", "value", 0, (0,), None, "J", (0,)),
    ("global_norm", "factor", 0, (0,), None, "factor", (0,)),
    ("update", "state", 0, (7,), 3, "m of W3", (1, 1)),
    ("update", "theta", 0, (7,), 3, "W3", (1, 1)),
    ("update", "theta", 1, (1,), 3, "b3", (1, 0)),
]
WITH_EXAMPLES = {"A1", "Z2", "Z3", "X2", "A2", "dZ3", "dU2", "dZ1", "dZ2"}


class Batch:
    """Rows that are there already."""

    first = 0

    def __init__(self, net: DenseNet, X: np.ndarray, Y: np.ndarray, weights: Any = None) -> None:
        put = net.backend.asarray
        self.X, self.Y, self.m = put(X.T, net.dtype), put(Y.T, net.dtype), len(X)
        self.weights = None if weights is None else put(weights[None, :], net.dtype)

    def gather(self, counters: Any) -> None:
        """Nothing."""


def net_of(case: Case | None = None, **settings: Any) -> DenseNet:
    where: dict[str, Any] = {} if case is None else {"device": case.backend, "kernels": case.kind}
    given: dict[str, Any] = {"loss": "squared_error", "batch_norm": [False, True], "activation": "tanh"}
    return small_net(SIZES, **(where | given | settings))


def found(step: TrainingStep, batch: Batch, micro_batch: int | None = None) -> NonFinite | None:
    """What a step over the batch is found to have."""
    step.load(step._table, [Denominator.of("mean", batch.m)])
    return find_non_finite(step, step.program(step._table, step._values, batch, micro_batch))


@pytest.mark.parametrize("case", cases())
def test_every_operation_and_layer_is_named(case: Case) -> None:
    kernels = None
    for n, (operation, output, call, index, layer, tensor, place) in enumerate(PLACES):
        net = net_of(case)
        step, value = TrainingStep(net, "adamw", **SETTINGS), (math.nan, math.inf, -math.inf)[n % 3]
        assert found(step, Batch(net, X, Y)) is None
        kernels = net.kernels
        PoisonedKernels(step, operation, output, call, 0, index, value)
        example = place[1] if tensor in WITH_EXAMPLES else None
        named = found(step, Batch(net, X, Y))
        assert named is not None, (operation, output)
        assert repr(named) == repr(NonFinite(operation, layer, tensor, place, example, value))
        assert isinstance(net.kernels, PoisonedKernels)  # they are back
        assert kernels is not net.kernels


def test_an_example_is_counted_within_its_batch_not_within_the_micro_batch() -> None:
    net = net_of(batch_norm=False)
    step = TrainingStep(net, "sgd")
    PoisonedKernels(step, "dense", "A", 4, 0, (1, 0))  # the second layer of the second part
    named = found(step, Batch(net, X, Y), micro_batch=4)
    assert named == NonFinite("dense", 2, "A2", (1, 4), 4, named.value if named else 0.0)
    assert str(named) == "nan in A2[1, 4] (forward, layer 2)"


@pytest.mark.parametrize("case", cases(without=("torch", "array_api_strict")))
def test_numbers_that_overflow_are_named_where_they_do(case: Case) -> None:
    net = net_of(case, dtype="float32", batch_norm=False, activation="relu")
    start = net.parameters()

    def named(X: np.ndarray, Y: np.ndarray, optimizer: Any = "sgd", **large: float) -> str:
        changed = {name: np.full_like(start[name], value) for name, value in large.items()}
        net.set_parameters(start | changed)
        found_now = found(TrainingStep(net, optimizer), Batch(net, X, Y))
        assert found_now is not None
        return f"{abs(found_now.value)} in {found_now.tensor} {found_now.example} ({found_now.operation})"

    one = np.arange(M)[:, None]
    assert named(np.where(one == 4, 3e38, X), Y) == "inf in Z1 4 (dense)"
    assert named(np.abs(X), Y, W1=1.0, W2=3e38) == "inf in Z2 0 (dense)"
    assert named(X, np.where(one == 2, 1e30, Y)) == "inf in L 2 (output_delta)"
    assert named(1e21 * np.abs(X), 1e17 + Y, W1=1.0, W2=1.0, W3=1e-20) == "inf in dW3 None (dense_vjp_params)"
    assert named(X, 1e9 * Y, {"name": "sgd", "learning_rate": 3e38}) == "inf in W1 None (update)"
    # The square of a gradient is too large for Adam's v, and that weight would never move again.
    assert named(1e4 * np.abs(X), 1e17 + Y, "adam", W1=1.0, W2=1.0, W3=0.0) == "inf in v of W3 None (update)"


def test_an_example_of_weight_0_is_not_what_is_named() -> None:
    net = net_of(batch_norm=False, activation="relu", dtype="float32")
    targets = np.where(np.arange(M)[:, None] == 2, 1e30, Y)
    weights = np.where(np.arange(M) == 2, 0.0, 1.0)
    assert found(TrainingStep(net, "sgd"), Batch(net, X, targets, weights)) is None
    targets[4] = -1e30
    named = found(TrainingStep(net, "sgd"), Batch(net, X, targets, weights))
    assert named is not None
    assert (named.tensor, named.example) == ("L", 4)


def test_inputs_and_scalars_are_named_too() -> None:
    net = net_of(batch_norm=False)
    spoiled = X.copy()
    spoiled[3, 1] = np.inf
    assert str(found(TrainingStep(net), Batch(net, spoiled, Y))) == "inf in X[1, 3] (input)"
    spoiled = Y.copy()
    spoiled[5, 0] = np.nan
    assert str(found(TrainingStep(net), Batch(net, X, spoiled))) == "nan in Y[0, 5] (input)"
