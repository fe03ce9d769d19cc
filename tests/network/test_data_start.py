"""Initial weights from training rows: the law of ``on_data``, unit by unit, through a whole network and a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.runs import quick

from backprop_gpu.build import prepare
from backprop_gpu.config import validate
from backprop_gpu.errors import ConfigError, ShapeError
from backprop_gpu.maths.initializers import on_data
from backprop_gpu.network.data_start import initialize_on_data
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.run_fit import encoded, fit


def rows(n: int = 300) -> np.ndarray:
    """Columns of very different sizes, one of them constant."""
    X = np.random.default_rng(0).standard_normal((n, 6)) * [1.0, 1e6, 1e-6, 1.0, 30.0, 0.0]
    return X + np.array([0.0, 1e6, 0.0, -5.0, 0.0, 2.0])


def test_every_unit_has_deviation_1_and_its_kink_within_the_data() -> None:
    A = rows().T
    W, b = on_data(np.random.default_rng(1), 50, A)
    np.testing.assert_allclose(np.std(W @ A, axis=1), 1.0, rtol=1e-12)
    Z = W @ A + b
    assert (Z.min(axis=1) < 0.0).all()
    assert (Z.max(axis=1) > 0.0).all()
    assert np.mean(Z > 0.0, axis=1).std() > 0.05  # at different places
    again, _ = on_data(np.random.default_rng(1), 50, 64.0 * A)  # a unit of measurement that only shifts exponents
    np.testing.assert_array_equal(64.0 * again, W)
    same, bias = on_data(np.random.default_rng(1), 3, np.full((2, 4), 7.0))
    np.testing.assert_allclose(same @ np.full((2, 1), 7.0) + bias, 0.0, atol=1e-13)  # no deviation to divide by
    # the bias is minus a mean of five examples' values, by hand
    rng = np.random.default_rng(1)
    rng.standard_normal((50, 6))
    at, share = rng.integers(0, 300, (50, 5)), rng.exponential(size=(50, 5))
    wanted = [-(W[i] @ A[:, at[i]]) @ share[i] / share[i].sum() for i in range(50)]
    np.testing.assert_allclose(b[:, 0], wanted, rtol=1e-12)


@pytest.mark.parametrize(
    "more",
    [
        {"parametric_activation": True},
        {"members": 3, "adapters": "none"},
        {"input_scaling": True, "periodic_embedding": {"columns": 4}},
    ],
)
def test_the_units_of_each_layer_of_a_network(more: dict[str, Any]) -> None:
    X = rows()
    net = DenseNet([6, 20, 10, 2], activation="selu", loss="squared_error", device="numpy", dtype="float64", **more)
    before = net.parameters()
    initialize_on_data(net, X)
    named = net.parameters()
    H = X.T
    if "frequency0" in named:
        w, phase, V, c = (named[f"{kind}0"] for kind in ("frequency", "phase", "mixing", "offset"))
        P = [np.cos(2 * np.pi * w[j][:, None] * X[:, j] + phase[j][:, None]) for j in range(4)]
        H = np.concatenate([H, np.concatenate([V[3 * j : 3 * j + 3] @ P[j] for j in range(4)]) + c])
    for j in range(net.members):
        A = H
        for l, n in enumerate(net.sizes[1:], 1):
            Z = named[f"W{l}"][n * j : n * (j + 1)] @ A
            np.testing.assert_allclose(Z.std(axis=1), 1.0, rtol=1e-9)
            A = net.activations[l].forward(np, Z + named[f"b{l}"][n * j : n * (j + 1)])
    assert all((named[name] == before[name]).all() for name in named if name[0] not in "Wb")
    if net.members > 1:
        assert not np.array_equal(named["W1"][:20], named["W1"][20:40])
    initialize_on_data(net, X)
    np.testing.assert_array_equal(net.parameters()["W2"], named["W2"])


def test_from_a_configuration_and_what_does_not_go_together() -> None:
    config = quick(
        data={"source": "breast_cancer"}, model={"initialize_on_data": True}, training={"epochs": 1}, optimizer="sgd"
    )
    experiment = prepare(config, progress=False)
    train, held_out = encoded(experiment)
    wanted = DenseNet(**experiment.model.net.settings(), device="cpu")
    initialize_on_data(wanted, train[0])
    experiment.trainer.step.optimizer = type(experiment.trainer.step.optimizer)(learning_rate=1e-30)
    fit(experiment, train, held_out)
    np.testing.assert_array_equal(experiment.model.net.parameters()["W1"], wanted.parameters()["W1"])
    shared = DenseNet([6, 4, 1], members=2, device="numpy")
    with pytest.raises(ConfigError, match="share weights"):
        initialize_on_data(shared, rows())
    with pytest.raises(ConfigError, match="batch_norm"):
        initialize_on_data(DenseNet([6, 4, 1], batch_norm=True, device="numpy"), rows())
    with pytest.raises(ShapeError, match=r"\(300, 5\)"):
        initialize_on_data(DenseNet([6, 4, 1], device="numpy"), rows()[:, :5])
    with pytest.raises(ConfigError, match="share no weights"):
        validate({"model": {"members": 2, "initialize_on_data": True}})
