"""Parametric activations in a network: their ends, gradcheck, parity, faults, files; without them, as it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import same_bits

from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.errors import ConfigError
from backprop_gpu.gradcheck.checking import gradcheck
from backprop_gpu.maths.activations import Activation
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.non_finite import find_non_finite
from backprop_gpu.network.plan import predict_memory, shape_step
from backprop_gpu.network.spec import described, step_spec
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.checking import check

SIZES = (4, 6, 5, 3)
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)), RNG.standard_normal((20, 3))
W = RNG.integers(1, 3, 20)


def net_of(case: Case | None = None, dtype: str = "float64", **settings: Any) -> DenseNet:
    """A network whose alphas have moved away from 1."""
    case = case or Case("numpy", "reference")
    given = {"activation": ["silu", "elu"], "loss": "squared_error", "parametric_activation": True, **settings}
    net = DenseNet(SIZES, dtype=dtype, device=case.backend, kernels=case.kind, **given)
    named, rng = net.parameters(), np.random.default_rng(1)
    for name in (name for name in named if name.startswith("alpha")):
        named[name] = rng.uniform(-0.5, 1.5, named[name].shape)
    net.set_parameters(named)
    return net


def test_at_its_ends_it_is_the_activation_and_the_identity() -> None:
    net = net_of()
    named = net.parameters()
    for value, activation in ((1.0, ["silu", "elu"]), (0.0, "identity")):
        net.set_parameters(named | {name: np.full(named[name].shape, value) for name in ("alpha1", "alpha2")})
        plain = DenseNet(SIZES, activation=activation, loss="squared_error", dtype="float64", device="numpy")
        plain.set_parameters({name: x for name, x in named.items() if not name.startswith("alpha")})
        np.testing.assert_allclose(net.predict_proba(X), plain.predict_proba(X), rtol=1e-12)
    assert net.n_parameters == plain.n_parameters + 11
    assert np.all(DenseNet(SIZES, parametric_activation=True, device="numpy").parameters()["alpha1"] == 1.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.2},
        {"parametric_activation": [False, True], "batch_norm": [True, True]},
        {"members": 2, "adapters": "all", "input_scaling": True},
        {"activation": Activation("square", lambda xp, Z: Z * Z, lambda xp, dA, Z, A: 2.0 * dA * Z)},
    ],
    ids=["dropout", "batch_norm", "members", "own"],
)
def test_the_gradient_is_the_derivative(settings: dict[str, Any]) -> None:
    for how in ({"l2": 0.1}, {"one_over_m": "late", "reduction": "sum"}):
        report = gradcheck(net_of(**settings), X, Y, W, **how)
        assert report.ok, report.summary()
        assert "alpha2" in {t.name for t in report.tensors}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases())
def test_parity_finds_honest_devices_right(case: Case, dtype: str) -> None:
    normalized = {"batch_norm": [True, False], "parametric_activation": [True, False]}
    for settings, how in (
        ({"dropout": 0.2}, {"one_over_m": "late", "micro_batch": 7, "l2": 0.1}),
        (normalized, {"sample_weight": W, "epochs": 2, "batch_size": 8}),
        ({"members": 2}, {}),
    ):
        report = check(net_of(case, dtype, **settings), X, Y, dtype=dtype, steps=2, **how)
        assert report.ok, report.summary()
        assert not [f for f in report.findings if f.status == "warning"]
        assert {"D1", "S1", "dA1", "dalpha1"} <= {f.tensor for f in report.findings}


FAULTS: list[tuple[str, str, Any]] = [
    ("parametric", "D1", lambda c: c.D.__iadd__(0.01)),
    ("parametric", "S1", lambda c: c.S.__imul__(1.01)),
    ("parametric", "A1", lambda c: c.A.__imul__(1.01)),
    ("parametric_vjp", "dalpha2", lambda c: c.dalpha.__imul__(2.0)),
    ("parametric_vjp", "db2", lambda c: c.db.__imul__(-1.0)),
    ("parametric_vjp", "dZ2", lambda c: c.dZ.__imul__(1.01)),
]


@pytest.mark.parametrize(("operation", "tensor", "act"), FAULTS, ids=lambda v: v if isinstance(v, str) else "")
def test_faults_are_found(operation: str, tensor: str, act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = getattr(ReferenceKernels, operation)

    def wrong(self: Any, *args: Any, **kwargs: Any) -> None:
        honest(self, *args, **kwargs)
        if kwargs.get("D", 0) is not None:
            act(SimpleNamespace(**kwargs))

    wrong.__wrapped__ = honest  # type: ignore[attr-defined]
    monkeypatch.setattr(ReferenceKernels, operation, wrong)
    report = check(net_of(dtype="float32"), X, Y)
    assert report.first is not None
    assert report.first.tensor == tensor
    if operation.endswith("_vjp"):
        assert not gradcheck(net_of(), X, Y).ok


@pytest.mark.parametrize("kind", ["reference", "native"])
def test_it_is_saved_and_its_state_goes_on_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    net = net_of(Case("numpy", kind), "float32", dropout=0.1)
    net.save(tmp_path / "net.safetensors")
    loaded = DenseNet.load(tmp_path / "net.safetensors", device="numpy", kernels=kind)
    assert loaded.spec() == net.spec()
    rows, targets = X.astype("float32"), Y.astype("float32")
    same_bits(loaded.predict_proba(rows), net.predict_proba(rows))
    assert "parametric_activation=True" in repr(net)
    one, two = TrainingStep(net), TrainingStep(loaded)
    one(rows.T, targets.T)
    two.load_state_dict(one.state_dict())
    for step in (one, two):
        step(rows.T, targets.T)
    for name, x in net.parameters().items():
        same_bits(loaded.parameters()[name], x)


def test_what_has_none_is_as_it_was() -> None:
    plain = DenseNet(SIZES, device="numpy", kernels="reference")
    assert "parametric_activation" not in plain.spec()
    assert "parametric" not in described(step_spec(TrainingStep(plain)))
    assert not any(plain.workspace(3).parametric)


def test_it_is_planned_and_its_numbers_are_looked_at() -> None:
    net = net_of(dtype="float32")
    network = {key: value for key, value in net.settings().items() if key not in ("sizes", "dtype")}
    step = shape_step(SIZES, "float32", "adam", {}, **network)
    assert predict_memory(step, 64, kernels=net.kernels).parameters == net.params.theta.nbytes
    named = net.parameters()
    named["alpha2"][3, 0] = np.inf
    net.set_parameters(named)
    step = TrainingStep(net)
    found = find_non_finite(step, lambda: step.gradient(X.T.astype("float32"), Y.T.astype("float32")))
    assert found is not None
    assert (found.operation, found.layer, found.tensor, found.index[0]) == ("parametric", 2, "A2", 3)


def test_settings_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 hidden layers need 2 entries in parametric_activation, got 1"):
        DenseNet(SIZES, parametric_activation=[True])
    with pytest.raises(ConfigError, match="parametric_activation must be true or false for each hidden layer, got 1"):
        DenseNet(SIZES, parametric_activation=1)  # type: ignore[arg-type]
