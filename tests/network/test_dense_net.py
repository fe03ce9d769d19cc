"""The network's door: construction, parameters, prediction, cost, and arrays from elsewhere."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support.backends import CASES, Case, cases
from support.bench import same_bits
from support.judging import ratio
from support.whole import gradient

from backprop_gpu.errors import BackpropError, ConfigError, DataError, DeviceError, ShapeError
from backprop_gpu.maths.initializers import INITIALIZERS
from backprop_gpu.maths.losses import LOSSES
from backprop_gpu.network import dense_net
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep


@pytest.mark.parametrize(
    ("sizes", "settings", "words"),
    [
        ([3], {}, "sizes needs inputs and outputs at least"),
        ([], {}, "sizes needs inputs and outputs at least"),
        (5, {}, "sizes"),
        (None, {}, "sizes"),
        ([3, 0, 1], {}, "every layer needs at least one unit; sizes is [3, 0, 1]"),
        ([3, -2, 1], {}, "every layer needs at least one unit"),
        ([3, True, 1], {}, "every layer needs at least one unit"),
        ([3.5, 1], {}, "every layer needs at least one unit"),
        ("31", {}, "every layer needs at least one unit"),
        ([2**30, 2**30, 1], {}, "beyond any device"),
        ([1, 2**30, 2**30, 1], {}, "beyond any device"),
        ([3, 2, 1], {"activation": "relo"}, "unknown activation 'relo' (did you mean 'relu'?)"),
        ([3, 2, 1], {"activation": "softmax"}, "activation 'softmax' is for outputs"),
        ([3, 2, 1], {"activation": {"name": "elu", "slope": 1.0}}, "activation 'elu' has no parameter 'slope'"),
        ([3, 2, 1], {"activation": {"name": "elu", "alpha": "x"}}, "alpha must be a finite number"),
        ([3, 2, 1], {"activation": ["relu", "relu"]}, "1 hidden layers need 1 activations, got 2"),
        ([3, 1], {"activation": ["relu"]}, "0 hidden layers need 0 activations, got 1"),
        ([3, 2, 1], {"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ([3, 2, 1], {"dropout": -0.1}, "dropout must be at least 0 and below 1"),
        ([3, 2, 1], {"dropout": float("nan")}, "dropout must be at least 0 and below 1"),
        ([3, 2, 1], {"dropout": True}, "dropout must be at least 0 and below 1"),
        ([3, 2, 1], {"dropout": [0.1, 0.2]}, "1 hidden layers need 1 dropout rates, got 2"),
        ([3, 2, 1], {"loss": "binary_crossentropy"}, "did you mean 'binary_cross_entropy'?"),
        ([3, 2, 1], {"loss": {"name": "huber", "delta": 1.0}}, "loss 'huber' has no parameter 'delta'"),
        ([3, 2, 1], {"loss": {"name": "huber", "threshold": 0.0}}, "threshold must be positive"),
        ([3, 2, 1], {"loss": {"name": "huber", "threshold": "1"}}, "huber: threshold must be positive and finite"),
        ([3, 2, 1], {"loss": None}, "loss"),
        ([3, 4], {"loss": {"name": "quantile", "quantiles": [0.1, 0.5, 0.9]}}, "3 quantiles need 3 outputs per target"),
        ([3, 2, 1], {"loss": "categorical_cross_entropy"}, "needs at least 2 outputs"),
        ([3, 2, 1], {"initializer": "he_norml"}, "did you mean 'he_normal'?"),
        ([3, 2, 1], {"initializer": None}, "unknown initializer None"),
        ([3, 2, 1], {"dtype": "float16"}, "dtype must be float32 or float64, got 'float16'"),
        ([3, 2, 1], {"seed": -1}, "seed must be an integer from 0 to 2**64 - 1"),
        ([3, 2, 1], {"seed": 2**64}, "seed must be an integer from 0 to 2**64 - 1"),
        ([3, 2, 1], {"seed": 1.5}, "seed must be an integer"),
        ([3, 2, 1], {"seed": True}, "seed must be an integer"),
        ([3, 2, 1], {"device": "gpu"}, "write 'cuda'"),
        ([3, 2, 1], {"kernels": "fast"}, "kernels 'fast' do not run on numpy"),
    ],
)
def test_settings_that_are_refused(sizes: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BackpropError) as caught:
        DenseNet(sizes, **{"device": "numpy", **settings})
    assert isinstance(caught.value, ConfigError | DeviceError)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", cases())
def test_spec_builds_the_network_again(case: Case) -> None:
    net = DenseNet(
        (4, 7, 5, 3),
        activation=[{"name": "leaky_relu", "slope": 0.3}, "gelu_tanh"],
        loss={"name": "categorical_cross_entropy", "label_smoothing": 0.05},
        initializer="lecun_uniform",
        dropout=[0.25, 0.0],
        dtype="float64",
        seed=2**63 + 5,
        device=case.backend,
        kernels=case.kind,
    )
    spec = json.loads(json.dumps(net.spec()))
    again = DenseNet(**spec, device=case.backend, kernels=case.kind)
    assert again.spec() == net.spec()
    assert again.n_parameters == net.n_parameters == 4 * 7 + 7 + 7 * 5 + 5 + 5 * 3 + 3
    X = np.random.default_rng(0).standard_normal((6, 4))
    same_bits(again.predict_proba(X), net.predict_proba(X))
    # the same dropout masks and gradients, too
    Y = case.put([[0, 1, 2, 2, 1, 0]], "int64")
    for a_net in (net, again):
        TrainingStep(a_net, "sgd")(case.put(np.ascontiguousarray(X.T)), Y)
    for name, value in net.parameters().items():
        same_bits(again.parameters()[name], value)


@pytest.mark.parametrize("initializer", ["auto", *INITIALIZERS])
def test_every_initializer_gives_the_seeds_own_weights(initializer: str) -> None:
    one, same, other = (DenseNet((5, 4, 3, 1), initializer=initializer, device="numpy", seed=s) for s in (3, 3, 4))
    for name, value in one.parameters().items():
        same_bits(same.parameters()[name], value)
        if name[0] == "b":
            assert not value.any()
        elif initializer != "zeros":
            assert not np.array_equal(other.parameters()[name], value)
            assert value.any()


@pytest.mark.parametrize("case", cases())
def test_parameters_come_back_as_they_were_set(case: Case) -> None:
    net = DenseNet((4, 3, 2), loss="squared_error", device=case.backend, kernels=case.kind)
    rng = np.random.default_rng(1)
    wanted = {name: rng.standard_normal(x.shape).astype("float32") for name, x in net.parameters().items()}
    assert list(wanted) == ["W1", "b1", "W2", "b2"]
    net.set_parameters(wanted)
    found = net.parameters()
    for name, value in wanted.items():
        same_bits(found[name], value)
    found["W1"][...] = 0.0  # a copy
    same_bits(net.parameters()["W1"], wanted["W1"])


def test_a_network_that_diverged_can_be_looked_at() -> None:
    net = DenseNet((4, 3, 2), loss="squared_error", device="numpy")
    net.set_parameters({name: np.full(x.shape, np.nan) for name, x in net.parameters().items()})
    assert all(np.isnan(x).all() for x in net.parameters().values())


def test_parameters_that_do_not_fit() -> None:
    net = DenseNet((4, 3, 2), loss="squared_error", device="numpy")
    good = net.parameters()
    with pytest.raises(ShapeError, match=r"^parameter W1 must be \(3, 4\), got \(4, 3\)$"):
        net.set_parameters({**good, "W1": good["W1"].T})
    with pytest.raises(ShapeError, match=r"^parameter b2 must be \(2, 1\), got nothing$"):
        net.set_parameters({name: x for name, x in good.items() if name != "b2"})
    with pytest.raises(ShapeError, match=r"^the network has no parameter 'w1'; it has "):
        net.set_parameters({**good, "w1": good["W1"]})
    with pytest.raises(ShapeError, match=r"^the network has no parameter 'W3'"):
        net.set_parameters({**good, "W3": good["W1"]})
    with pytest.raises(ShapeError, match=r"^parameter b1 must hold real numbers, got <U1$"):
        net.set_parameters({**good, "b1": np.full((3, 1), "x")})
    with pytest.raises(ShapeError, match=r"^parameter b1 must hold real numbers, got complex128$"):
        net.set_parameters({**good, "b1": np.zeros((3, 1), complex)})
    for name, value in good.items():
        same_bits(net.parameters()[name], value)


@pytest.mark.parametrize("case", cases())
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_of_predictions(case: Case, loss: str, outputs: int) -> None:
    outputs = max(outputs, 2) if loss == "categorical_cross_entropy" else outputs
    net = DenseNet((4, 5, outputs), loss=loss, device=case.backend, kernels=case.kind)
    X = np.random.default_rng(2).standard_normal((9, 4))
    proba, labels = net.predict_proba(X), net.predict(X)
    assert proba.shape == (9, outputs)
    assert proba.dtype == np.float32
    if loss == "categorical_cross_entropy":
        np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=8 * 2.0**-24)
        same_bits(labels, proba.argmax(axis=1))
        return
    assert labels.shape == ((9,) if outputs == 1 else (9, outputs))
    wanted = (proba > 0.5).astype(np.int64) if loss == "binary_cross_entropy" else proba
    same_bits(labels, wanted[:, 0] if outputs == 1 else wanted)


@pytest.mark.parametrize("case", cases())
def test_blocks_of_rows_give_one_pass(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """On small whole numbers, where no product rounds; with a ragged last block."""
    net = DenseNet((4, 6, 3), loss="squared_error", device=case.backend, kernels=case.kind)
    rng = np.random.default_rng(3)
    net.set_parameters({name: rng.integers(-3, 4, x.shape) for name, x in net.parameters().items()})
    X, y, w = rng.integers(-4, 5, (23, 4)), rng.integers(-9, 10, (23, 3)), rng.integers(0, 3, 23)
    whole = net.predict_proba(X), net.predict(X), net.cost(X, y), net.cost(X, y, w)
    W1, b1, W2, b2 = net.parameters().values()
    same_bits(whole[0], (W2 @ np.maximum(W1 @ X.T + b1, 0) + b2).T.astype("float32"))
    for rows in (1, 7, 22, 23):
        monkeypatch.setattr(dense_net, "BLOCK_ROWS", rows)
        same_bits(net.predict_proba(X), whole[0])
        same_bits(net.predict(X), whole[1])
        # 1/3 rounds in each example's loss: (0.5 / n_L) times a whole number, and their sums
        assert net.cost(X, y) == pytest.approx(whole[2], rel=64 * 2.0**-24)
        assert net.cost(X, y, w) == pytest.approx(whole[3], rel=64 * 2.0**-24)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", cases())
def test_cost_is_the_weighted_mean_of_the_loss(case: Case, loss: str) -> None:
    net = DenseNet((3, 4, 2), activation="tanh", loss=loss, device=case.backend, kernels=case.kind, dtype="float64")
    rng = np.random.default_rng(4)
    X, w = rng.standard_normal((8, 3)), rng.integers(0, 3, 8).astype(float)
    y = np.eye(2)[rng.integers(0, 2, 8)] if "entropy" in loss else np.abs(rng.standard_normal((8, 2)))
    parameters = (loss, vars(LOSSES[loss]()))
    for weights, columns in ((None, None), (w, w[None, :])):
        bounded = gradient(case.bounds("float64"), net.parameters(), [("tanh", {})], parameters, X.T, y.T, columns)["J"]
        assert ratio(np.array([net.cost(X, y, weights)]), bounded) <= 1.0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", cases())
def test_whole_numbers_are_as_good_as_floats(case: Case, loss: str) -> None:
    """X and y of integers or booleans, as tables often have them, give the bits of the same numbers as floats."""
    net = DenseNet((3, 4, 2), loss=loss, device=case.backend, kernels=case.kind)
    rng = np.random.default_rng(8)
    X, y = rng.integers(-3, 4, (6, 3)), np.eye(2, dtype=np.int64)[rng.integers(0, 2, 6)]
    wanted = net.cost(X.astype(float), y.astype(float))
    same_bits(net.predict_proba(X), net.predict_proba(X.astype(float)))
    assert net.cost(X, y) == wanted
    assert net.cost(X.astype("int8"), y.astype(bool)) == wanted


@pytest.mark.parametrize("case", cases())
def test_dropout_is_for_training_alone(case: Case) -> None:
    sizes, X = (4, 6, 5, 1), np.random.default_rng(5).standard_normal((7, 4))
    nets = [DenseNet(sizes, dropout=rate, device=case.backend, kernels=case.kind, seed=1) for rate in (0.0, 0.9)]
    same_bits(nets[0].predict_proba(X), nets[1].predict_proba(X))


# -- arrays that are refused, and arrays from elsewhere --------------------------------------------------------------


def test_a_bad_cell_is_named() -> None:
    net = DenseNet((3, 4, 2), loss="categorical_cross_entropy", device="numpy")
    X = np.ones((5, 3))
    for call in (net.predict, net.predict_proba, lambda x: net.cost(x, [0, 1, 1, 0, 1])):
        X[3, 1] = np.nan
        with pytest.raises(DataError, match="X has nan at row 3, column 1"):
            call(X)
        X[3, 1] = 1.0
    with pytest.raises(DataError, match=r"y must be a class label from 0 to 1, got \[2\] at row 4"):
        net.cost(X, [0, 1, 1, 0, 2])
    with pytest.raises(DataError, match="sample_weight has nan at row 2"):
        net.cost(X, [0, 1, 1, 0, 1], [1, 1, np.nan, 1, 1])


@pytest.mark.parametrize("case", cases())
def test_arrays_of_the_networks_own_device_are_taken(case: Case) -> None:
    net = DenseNet((3, 4, 2), loss="categorical_cross_entropy", device=case.backend, kernels=case.kind)
    rng = np.random.default_rng(6)
    X, y, w = rng.standard_normal((5, 3)), rng.integers(0, 2, 5), rng.integers(1, 3, 5).astype(float)
    same_bits(net.predict_proba(case.put(X)), net.predict_proba(X))
    same_bits(net.predict(case.put(X)), net.predict(X))
    assert net.cost(case.put(X), case.put(y), case.put(w)) == net.cost(X, y, w)


@pytest.mark.parametrize("there", cases(without=["numpy", "emulated"]))  # emulated arrays are NumPy's
def test_arrays_of_another_device_are_refused(there: Case) -> None:
    """One line that names the argument, where it is and where the network is."""
    X, y, w = np.ones((5, 3)), np.array([0, 1, 1, 0, 1]), np.ones(5)
    others = [Case("numpy"), *(c for c in CASES if c.namespace in ("array_api_strict", "torch"))]
    for here in (case for case in others if case.device != there.device):
        net = DenseNet((3, 4, 2), loss="categorical_cross_entropy", device=here.backend, kernels=here.kind)
        calls: list[tuple[str, Any]] = [
            ("X", lambda net=net: net.predict(there.put(X))),
            ("X", lambda net=net: net.cost(there.put(X), y)),
            ("y", lambda net=net: net.cost(X, there.put(y))),
            ("sample_weight", lambda net=net: net.cost(X, y, there.put(w))),
        ]
        for name, call in calls:
            with pytest.raises(DeviceError) as caught:
                call()
            text = str(caught.value)
            assert text.startswith(f"{name} is an array on {there.namespace}")
            assert f"the model is on {here.backend.name}" in text
            assert str(there.put(X).device) in text
            assert "\n" not in text


class Table:
    """What a data frame with a column called "device" looks like to Python."""

    shape = (2, 3)

    def __init__(self) -> None:
        self.device = ["phone", "laptop"]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.ones(self.shape)


def test_a_table_with_a_column_called_device_is_no_device_array() -> None:
    net = DenseNet((3, 1), device="numpy")
    same_bits(net.predict_proba(Table()), net.predict_proba(np.ones((2, 3))))
