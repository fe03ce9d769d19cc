"""Formulas of the user's own: trained, checked, saved and loaded; or refused before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.own_formulas import SNAKE, Halving, LogCosh, SignMomentum, snake, snake_vjp
from support.small_nets import small_net

from backprop_gpu import DenseNet, Trainer, gradcheck, load, parity
from backprop_gpu.build import Model
from backprop_gpu.data.preprocessing import Preprocessor
from backprop_gpu.data.table import Table
from backprop_gpu.errors import CheckpointError, ConfigError
from backprop_gpu.maths.activations import Activation, get_activation
from backprop_gpu.maths.losses import SquaredError
from backprop_gpu.maths.optimizers import Adam
from backprop_gpu.network.step import TrainingStep

RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, 3))
Y = np.sin(X[:, :1]) + 0.1 * RNG.standard_normal((64, 1))


@dataclass(frozen=True)
class Doubled(SquaredError):
    """Twice the squared error, under its name."""

    def value(self, xp: Any, Z: Any, Y: Any) -> Any:
        return 2.0 * super().value(xp, Z, Y)

    def delta(self, xp: Any, Z: Any, Y: Any) -> Any:
        return 2.0 * super().delta(xp, Z, Y)


TRIPLED = replace(
    get_activation("tanh"),
    forward_function=lambda xp, Z: 3.0 * xp.tanh(Z),
    vjp_function=lambda xp, dA, Z, A: dA * (3.0 - A * A / 3.0),
)


def own_net(**settings: Any) -> DenseNet:
    given = {"activation": ["tanh", SNAKE], "loss": LogCosh(2.0), "dtype": "float64"} | settings
    return small_net([3, 6, 5, 1], **given)


# -- from training to a file and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(), ids=str)
def test_trained_as_their_formulas_say(case: Case) -> None:
    """Against the textbook's loop, written out for this network."""
    net = own_net(device=case.backend, kernels=case.kind)
    p = {name: value.copy() for name, value in net.parameters().items()}
    Trainer(net, optimizer=SignMomentum(0.02), schedule=Halving(2), epochs=4, batch_size=64, shuffle=False).fit(X, Y)
    v = dict.fromkeys(p, 0.0)
    for t in range(4):
        A1 = np.tanh(p["W1"] @ X.T + p["b1"])
        Z2 = p["W2"] @ A1 + p["b2"]
        A2 = Z2 + np.sin(0.5 * Z2) ** 2 / 0.5
        dZ3 = np.tanh(2.0 * (p["W3"] @ A2 + p["b3"] - Y.T)) / 64
        dZ2 = p["W3"].T @ dZ3 * (1.0 + np.sin(Z2))
        dZ1 = p["W2"].T @ dZ2 * (1.0 - A1**2)
        for l, dZ, A in ((1, dZ1, X.T), (2, dZ2, A1), (3, dZ3, A2)):
            for name, g in ((f"W{l}", dZ @ A.T), (f"b{l}", dZ.sum(axis=1, keepdims=True))):
                v[name] = 0.5 * v[name] + g
                p[name] = p[name] - 0.02 * 0.5 ** (t // 2) * np.sign(v[name])
    for name, value in net.parameters().items():
        np.testing.assert_allclose(value, p[name], rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_gradcheck_judges_them(case: Case) -> None:
    device = {"device": case.backend, "kernels": case.kind}
    assert gradcheck(own_net(**device), X[:7], Y[:7]).ok
    wrong = replace(SNAKE, vjp_function=lambda xp, dA, Z, A, a: dA * (1.0 + xp.sin(a * Z)))
    assert not gradcheck(own_net(activation=wrong, **device), X[:7], Y[:7]).ok


@pytest.mark.parametrize("custom", [[SNAKE, LogCosh], (LogCosh(), replace(SNAKE, parameters=(("a", 9.0),)))])
def test_saved_and_loaded(custom: Any, tmp_path: Path) -> None:
    """With the parameters that the file has, whatever those of the object that is given."""
    net = own_net()
    net.save(tmp_path / "net")
    again = DenseNet.load(tmp_path / "net", custom=custom)
    assert (again.loss, again.activations[2], again.spec()) == (LogCosh(2.0), SNAKE, net.spec())
    np.testing.assert_array_equal(again.predict(X), net.predict(X))
    assert again.cost(X, Y) == net.cost(X, Y)


def test_a_model_with_its_preprocessing_is_loaded_too(tmp_path: Path) -> None:
    table = Table("made", ("a", "b", "c"), X, {}, Y.ravel(), ("y",))
    model = Model(own_net(), Preprocessor.fit(table, task="regression"))
    model.save(tmp_path / "model")
    again = load(tmp_path / "model", custom=[SNAKE, LogCosh])
    np.testing.assert_array_equal(again.predict(table), model.predict(table))
    with pytest.raises(CheckpointError, match="custom="):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    ("custom", "words"),
    [
        ((), "needs the activation 'snake' (support.own_formulas.snake), which is not one of the package's"),
        ([LogCosh, SignMomentum], "needs the activation 'snake'"),
        ([SNAKE], "needs the loss 'log_cosh' (support.own_formulas.LogCosh)"),
        ([SNAKE, replace(SNAKE, name="log_cosh")], "needs the loss 'log_cosh'"),
    ],
)
def test_a_file_whose_formula_is_not_given_says_which(custom: Any, words: str, tmp_path: Path) -> None:
    own_net().save(tmp_path / "net")
    with pytest.raises(CheckpointError) as caught:
        DenseNet.load(tmp_path / "net", custom=custom)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("one", [SNAKE, replace(SNAKE, parameters=())])
def test_one_formula_needs_no_list(one: Any, tmp_path: Path) -> None:
    net = small_net([3, 4, 1], activation=SNAKE, loss="squared_error")
    net.save(tmp_path / "net")
    np.testing.assert_array_equal(DenseNet.load(tmp_path / "net", custom=one).predict(X), net.predict(X))
    with pytest.raises(CheckpointError, match="needs the activation 'snake'"):
        DenseNet.load(tmp_path / "net", custom=LogCosh)


def test_a_variant_under_a_built_ins_name_is_never_taken_for_it(tmp_path: Path) -> None:
    for settings, own in (({"activation": TRIPLED}, TRIPLED), ({"loss": Doubled()}, Doubled)):
        net = small_net([3, 4, 1], **({"loss": "squared_error"} | settings))
        net.save(tmp_path / "net")
        with pytest.raises(CheckpointError, match=r"custom=\[\.\.\.\]"):
            DenseNet.load(tmp_path / "net")
        assert DenseNet.load(tmp_path / "net", custom=[own]).cost(X, Y) == net.cost(X, Y)


# -- refused at the start ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scalar(LogCosh):
    """One number for all examples."""

    def value(self, xp: Any, Z: Any, Y: Any) -> Any:
        return xp.sum(Z - Y)


@dataclass(frozen=True)
class Held(LogCosh):
    """Holds what no file can."""

    function: Any = np.tanh


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"activation": Activation("own", lambda Z: Z, snake_vjp)}, "activation 'own': forward raised TypeError: "),
        ({"activation": Activation("own", snake, lambda dA, Z: dA)}, "activation 'own': vjp raised TypeError: "),
        (
            {"activation": Activation("own", lambda xp, Z: Z[:1], snake_vjp)},
            "gave an array (1, 2) where (3, 2)",
        ),
        ({"activation": Activation("own", snake, lambda *_: 1.0)}, "vjp gave an array () where (3, 2) is needed"),
        ({"activation": [SNAKE, replace(SNAKE, vjp_function=lambda *_: 0.0)]}, "two activations are called 'snake'"),
        ({"loss": Scalar()}, "loss 'log_cosh': value gave an array () where (1, 2) is needed"),
        ({"loss": Held()}, "loss 'log_cosh': its parameters must be numbers, texts or lists"),
    ],
)
def test_what_cannot_be_trained_or_saved_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        own_net(**settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Forgetful(SignMomentum):
    """Gives its state away."""

    def apply(self, xp: Any, theta: Any, grad: Any, state: Any, scalars: Any, *, decay: bool) -> Any:
        return theta - grad, ()


@dataclass(frozen=True)
class InPlace(SignMomentum):
    """Written for another interface."""

    def apply(self, theta: Any, grad: Any) -> Any:
        theta -= grad


@dataclass(frozen=True)
class Flat(SignMomentum):
    """One number for all parameters."""

    def apply(self, xp: Any, theta: Any, grad: Any, state: Any, scalars: Any, *, decay: bool) -> Any:
        return xp.sum(theta), state


@dataclass(frozen=True)
class Negative(Halving):
    """Uphill."""

    def factor(self, t: int, total: int) -> float:
        return -1.0


@dataclass(frozen=True)
class Broken(Halving):
    """Ends before the run does."""

    def factor(self, t: int, total: int) -> float:
        return [1.0, 0.5][t]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            {"optimizer": Forgetful()},
            "optimizer 'sign_momentum': apply raised ValueError: 0 state vectors came back where 1",
        ),
        ({"optimizer": InPlace()}, "optimizer 'sign_momentum': apply raised TypeError: "),
        ({"optimizer": Flat()}, "optimizer 'sign_momentum': apply gave an array () where (2,) is needed"),
        ({"schedule": Negative()}, "schedule 'halving': factor gave -1.0; return a number of at least 0"),
        ({"schedule": Broken()}, "schedule 'halving': factor raised IndexError: "),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(step: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Trainer(own_net(), **step)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class Squared(Activation):
    """With methods in place of functions."""

    def forward(self, xp: Any, Z: Any) -> Any:
        return Z * Z

    def vjp(self, xp: Any, dA: Any, Z: Any, A: Any) -> Any:
        return 2.0 * dA * Z


@dataclass(frozen=True)
class Warmed(Adam):
    """Takes what Adam does not."""

    warm: bool = True
    layers: tuple[int, ...] = (1, 2)


def test_subclasses_of_built_ins_and_methods_in_place_of_functions_work(tmp_path: Path) -> None:
    square: Any = Squared("square", None, None)  # type: ignore[arg-type]
    net = own_net(activation=["tanh", square])
    Trainer(net, optimizer=Warmed(), epochs=1).fit(X, Y)
    assert gradcheck(net, X[:5], Y[:5]).ok
    net.save(tmp_path / "net")
    again = DenseNet.load(tmp_path / "net", custom=[square, LogCosh])
    np.testing.assert_array_equal(again.predict(X), net.predict(X))


def test_one_activation_with_two_parameters_is_no_clash() -> None:
    net = own_net(activation=[SNAKE, replace(SNAKE, parameters=(("a", 2.0),))])
    assert gradcheck(net, X[:5], Y[:5]).ok


def test_a_loss_without_its_literal_form_is_refused_in_it() -> None:
    with pytest.raises(ConfigError, match=r"loss 'log_cosh' has no literal_dAL; use delta='fused'"):
        TrainingStep(own_net(), delta="literal")


@pytest.mark.parametrize(
    ("device", "kernels", "settings"),
    [
        ("numpy", "auto", {}),
        ("numpy", "reference", {"batch_norm": True, "dropout": 0.2}),
        ("array_api_strict", "reference", {"parametric_activation": True}),
    ],
)
def test_parity_bounds_activations_by_their_own_operations(
    device: str, kernels: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Beside a built-in of the same name; the case judges again where the activations are given."""
    kinked = Activation(
        "kinked",
        lambda xp, Z: xp.where(Z > 0.0, Z * Z, 0.1 * Z),
        lambda xp, dA, Z, A: xp.where(Z > 0.0, 2.0 * Z, 0.1) * dA,
    )
    how = {"device": device, "kernels": kernels, "loss": "squared_error", "dtype": "float32"} | settings
    net = small_net([3, 6, 5, 4, 7, 1], activation=["tanh", SNAKE, TRIPLED, kinked], **how)
    report = parity.check(net, X[:20], Y[:20], epochs=1)
    assert report.ok, report.summary()
    assert max(f.ratio for f in report.findings if f.tensor in ("A2", "G2", "dZ2", "dU2", "D2", "S2")) > 0.1
    report.save(tmp_path / "case")
    assert parity.replay(tmp_path / "case", custom=[SNAKE, TRIPLED, kinked]).ok
    with pytest.raises(CheckpointError, match=r"needs the activation 'kinked'.*custom=\["):
        parity.replay(tmp_path / "case", custom=[SNAKE, TRIPLED])


def test_parity_sees_a_device_that_computes_them_wrongly() -> None:
    """By 4 units in the last place of float32, in the forward or in the vjp; of what it cannot bound it says so."""
    off = 1.0 + 2.0**-21
    forward = replace(SNAKE, forward_function=lambda xp, Z, a: snake(xp, Z, a=a) * (off if xp is np else 1.0))
    backward = replace(
        SNAKE, vjp_function=lambda xp, dA, Z, A, a: snake_vjp(xp, dA, Z, A, a=a) * (off if xp is np else 1.0)
    )
    for activation, tensor in ((forward, "G1"), (backward, "dZ2")):
        report = parity.check(own_net(activation=activation, loss="squared_error", device="numpy"), X, Y)
        assert report.first is not None
        assert report.first.tensor == tensor
    unknown = Activation("root", lambda xp, Z: xp.cbrt(Z), lambda xp, dA, Z, A: dA / (3.0 * A * A))
    with pytest.raises(
        ConfigError, match=r"activation 'root': parity cannot bound xp.cbrt; write it with other functions"
    ):
        parity.check(own_net(activation=unknown, loss="squared_error"), X, Y)


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, {}),
        ({"loss": "squared_error"}, {"optimizer": SignMomentum()}),
        ({"loss": "squared_error"}, {"schedule": Halving()}),
    ],
)
def test_parity_says_that_it_has_no_second_version_of_the_others(
    settings: dict[str, Any], step: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"^parity has no bounds for '"):
        parity.check(own_net(**settings), X, Y, **step)
