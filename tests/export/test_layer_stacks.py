"""Weights from and to stacks of dense layers of PyTorch and Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from backprop_gpu import DenseNet, cli
from backprop_gpu.errors import ConfigError
from backprop_gpu.export import from_keras, from_torch, from_torch_state, to_torch_state

X = np.random.default_rng(0).standard_normal((30, 4)).astype("f4")


def test_a_state_goes_out_and_comes_back_with_its_bits() -> None:
    net = DenseNet([4, *[6] * 6, 3], activation="tanh", loss="categorical_cross_entropy", device="cpu", seed=3)
    state = to_torch_state(net)
    assert {name: x.shape for name, x in state.items()} == {
        "0.weight": (6, 4),
        "0.bias": (6,),
        **{f"{k}.weight": (6, 6) for k in range(2, 12, 2)},
        **{f"{k}.bias": (6,) for k in range(2, 12, 2)},
        "12.weight": (3, 6),
        "12.bias": (3,),
    }
    loaded = {name: state[name] for name in sorted(state, reverse=True)}  # files of safetensors keep no order
    again = from_torch_state(loaded, activation="tanh", loss="categorical_cross_entropy", device="cpu")
    np.testing.assert_array_equal(again.predict_proba(X), net.predict_proba(X))


def test_a_normalized_layer_is_multiplied_in() -> None:
    net = DenseNet([4, 6, 1], batch_norm=True, loss="squared_error", dtype="float64", device="cpu")
    rng = np.random.default_rng(1)
    net.set_parameters({name: rng.uniform(0.5, 2.0, x.shape) for name, x in net.parameters().items()})
    plain = from_torch_state(to_torch_state(net), loss="squared_error", device="cpu")
    np.testing.assert_allclose(plain.predict_proba(X), net.predict_proba(X), rtol=1e-13)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "no weight at all"),
        ({"0.weight": np.zeros((2, 3))}, "0.bias"),
        ({"0.weight": np.zeros((2, 3)), "0.bias": np.zeros(2), "1.running_mean": np.zeros(2)}, "1.running_mean"),
        (
            {"0.weight": np.zeros((2, 3)), "0.bias": np.zeros(2), "2.weight": np.zeros((1, 5)), "2.bias": np.zeros(1)},
            r"\(2, 3\) is followed by \(1, 5\)",
        ),
        ({"weight": np.zeros(3), "bias": np.zeros(3)}, r"a weight \(n_out, n_in\) and a bias \(n_out,\), got \(3,\)"),
        ({"weight": np.zeros((2, 3)), "bias": np.zeros((2, 1))}, r"got \(2, 3\) and \(2, 1\)"),
        ({"weight": np.zeros((0, 3)), "bias": np.zeros(0)}, r"got \(0, 3\) and \(0,\)"),
    ],
)
def test_a_state_of_something_else_is_refused(state: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_torch_state(state)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"members": 2}, "members"),
        ({"periodic_embedding": True, "parametric_activation": True}, "periodic_embedding, parametric_activation"),
    ],
)
def test_a_network_that_is_no_stack_is_refused_by_the_names_of_its_parts(parts: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"a network with {named} is no stack of Linear layers; write ONNX"):
        to_torch_state(DenseNet([4, 3, 1], device="cpu", **parts))
    with pytest.raises(ConfigError, match="weights of a DenseNet are written"):
        to_torch_state(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["onnx", "numpy", "torch"])
def test_the_command_writes_a_file(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / f"model.{to}"
    cli.main(["train", "moons", "--set", "training.epochs=1", "--run-dir", str(run), "--quiet"])
    assert cli.main(["export", str(run), "--to", to, "--out", str(out)]) == 0
    assert capsys.readouterr().out.split()[-1] == str(out)
    assert out.stat().st_size > 1000
    if to == "torch":
        assert set(load_file(out)) == {f"{l}.{kind}" for l in (0, 2, 4) for kind in ("weight", "bias")}
    assert cli.main(["export", str(run), "--to", to, "--out", str(tmp_path / "nowhere" / "x")]) == 2
    assert "cannot write" in capsys.readouterr().err


# -- the other libraries themselves, where they are installed ----------------------------------------------------------


def test_pytorch_s_stack_computes_the_same() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: not needed by any test but these")
    nn = torch.nn
    hidden = [
        nn.ReLU(),
        nn.Tanh(),
        nn.Sigmoid(),
        nn.SiLU(),
        nn.Softplus(),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.ELU(0.7),
        nn.SELU(),
        nn.Mish(),
    ]
    for g in (*hidden, nn.LeakyReLU(0.3)):
        stack = nn.Sequential(
            nn.Linear(4, 6), g, nn.Dropout(0.5), nn.Linear(6, 5), nn.Linear(5, 3), nn.Softmax(1)
        ).eval()
        net = from_torch(stack, device="cpu")
        with torch.no_grad():
            want = stack(torch.from_numpy(X)).numpy()
        np.testing.assert_allclose(net.predict_proba(X), want, rtol=2e-5, atol=2e-7)
        assert net.dropout[1] == 0.5
        assert net.loss.name == "categorical_cross_entropy"
        plain = nn.Sequential(nn.Linear(4, 6), g, nn.Linear(6, 5), nn.Identity(), nn.Linear(5, 3))
        plain.load_state_dict({name: torch.from_numpy(value) for name, value in to_torch_state(net).items()})
        with torch.no_grad():
            got = nn.Softmax(1)(plain(torch.from_numpy(X))).numpy()
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-7)
    with pytest.raises(ConfigError, match="Conv1d has no place"):
        from_torch(nn.Sequential(nn.Linear(4, 6), nn.Conv1d(1, 1, 1)))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of Keras' own
def test_keras_s_stack_computes_the_same() -> None:
    keras = pytest.importorskip("keras", reason="keras is not installed: not needed by any test but this")
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(6, "silu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(1, "sigmoid"),
    ]
    model = keras.Sequential(layers)
    net = from_keras(model, device="cpu")
    np.testing.assert_allclose(net.predict_proba(X), keras.ops.convert_to_numpy(model(X)), rtol=2e-5, atol=2e-7)
    assert (net.loss.name, net.dropout[1]) == ("binary_cross_entropy", 0.2)
    with pytest.raises(ConfigError, match=r"LayerNormalization .* has no place"):
        from_keras(keras.Sequential([keras.Input((4,)), keras.layers.LayerNormalization()]))
