"""Learning rates by tensor, and NTK parametrization: the same steps as its own formula, for every optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import same_bits

from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.optimizers import OPTIMIZERS, SGD, Optimizer, get_optimizer
from backprop_gpu.network import parameter_groups as groups
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.spec import described, step_spec
from backprop_gpu.network.state import check_same, step_settings
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.checking import check

SIZES = (5, 7, 3)
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((5, 16)), RNG.standard_normal((3, 16))


def net_of(case: Case | None = None, dtype: str = "float64", **settings: Any) -> DenseNet:
    case = case or Case("numpy", "reference")
    given = {"activation": "tanh", "loss": "squared_error", "initializer": "lecun_normal", **settings}
    return DenseNet(SIZES, dtype=dtype, device=case.backend, kernels=case.kind, **given)


def ntk_by_hand(optimizer: Optimizer, start: dict[str, np.ndarray], steps: int, rate_of_b: float) -> dict[str, Any]:
    """Z = V A / sqrt(k) + b with V moved by the optimizer, as the papers write it; returns V / sqrt(k) and b."""
    k = {1: 5, 2: 7}
    theta = {f"V{l}": start[f"W{l}"] * math.sqrt(k[l]) for l in k} | {f"b{l}": start[f"b{l}"] for l in k}
    state = {name: [np.zeros_like(x) for _ in optimizer.state_names] for name, x in theta.items()}
    for t in range(1, steps + 1):
        A = np.tanh(theta["V1"] @ X / math.sqrt(5) + theta["b1"])
        Z = theta["V2"] @ A / math.sqrt(7) + theta["b2"]
        dZ2 = (Z - Y) / (3 * 16)  # of (1/m) sum of the mean over outputs of (Z - Y)^2 / 2
        dZ1 = (theta["V2"].T @ dZ2 / math.sqrt(7)) * (1.0 - A * A)
        grad = {"V1": dZ1 @ X.T / math.sqrt(5), "V2": dZ2 @ A.T / math.sqrt(7)}
        grad |= {f"b{l}": dZ.sum(axis=1, keepdims=True) for l, dZ in ((1, dZ1), (2, dZ2))}
        for name, x in theta.items():
            factor = rate_of_b if name[0] == "b" else 1.0
            numbers = optimizer.scalars(t, factor * optimizer.learning_rate)
            theta[name], state[name] = optimizer.apply(np, x, grad[name], state[name], numbers, decay=name[0] == "V")
    return {
        name.replace("V", "W"): x / math.sqrt(k[int(name[1])]) if name[0] == "V" else x for name, x in theta.items()
    }


SPECS: list[Any] = [{"name": name, "learning_rate": 0.05} for name in OPTIMIZERS]
SPECS += [{"name": "momentum", "learning_rate": 0.05, "variant": "average"}]
SPECS += [{"name": "adam", "learning_rate": 0.05, "variant": "epsilon_hat", "epsilon": 1e-2}]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: "-".join(str(v) for v in s.values() if isinstance(v, str)))
def test_ntk_is_the_network_with_the_root_in_its_forward_pass(spec: dict[str, Any]) -> None:
    """Ten steps, to float64's roundings; with an epsilon as large as the gradient it matters where it stands."""
    spec = {**({"epsilon": 1e-2} if "epsilon" in vars(get_optimizer(spec)) else {}), **spec}
    step = TrainingStep(net_of(), spec, parametrization="ntk", learning_rate_factors={"b": 0.1})
    want = ntk_by_hand(step.optimizer, step.net.parameters(), 10, 0.1)
    for _ in range(10):
        step(X, Y)
    for name, x in step.net.parameters().items():
        np.testing.assert_allclose(x, want[name], rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("case", cases())
def test_factors_multiply_the_learning_rate_of_their_tensors(case: Case) -> None:
    """Each tensor has the bits of a run with its learning rate alone, by name before kind; 0 leaves a tensor alone."""
    factors = {"b": 0.5, "b2": 0.0, "W1": 2.0}
    rates = {"W1": 0.2, "W2": 0.1, "b1": 0.05}
    X32, Y32 = (case.put(x, "float32") for x in (X, Y))

    def after(rate: float, **settings: Any) -> dict[str, np.ndarray]:
        net = net_of(case, "float32")
        TrainingStep(net, {"name": "adamw", "learning_rate": rate, "weight_decay": 0.3}, **settings)(X32, Y32)
        return net.parameters()

    got, start = after(0.1, learning_rate_factors=factors), net_of(case, "float32").parameters()
    same_bits(got["b2"], start["b2"])
    for name, rate in rates.items():
        same_bits(got[name], after(rate)[name])


def test_what_is_left_at_its_default_leaves_records_as_they_were() -> None:
    step = TrainingStep(net_of())
    assert not {"learning_rate_factors", "parametrization"} & described(step_spec(step)).keys()
    assert step.groups.step_scalars(step.optimizer, 3, 0.1) == list(step.optimizer.step_scalars(3, 0.1))
    other = TrainingStep(net_of(), parametrization="ntk", learning_rate_factors={"W1": 2.0})
    assert step.scalars_key != other.scalars_key
    with pytest.raises(ConfigError, match=r"learning_rate_factors.*W1.* 2\.0|parametrization"):
        check_same(step_settings(step), step_settings(other), "")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rate_factors": {"bias": 0.1}}, "the network has no 'bias'; it has W, b, W2, W1, b2, b1"),
        ({"learning_rate_factors": {"W3": 0.1}}, "the network has no 'W3'"),
        ({"learning_rate_factors": {"b": -0.1}}, "b must be a number from 0, got -0.1"),
        ({"learning_rate_factors": {"b": math.nan}}, "b must be a number from 0, got nan"),
        ({"learning_rate_factors": {"b": "0.1"}}, "b must be a number from 0, got '0.1'"),
        ({"learning_rate_factors": 0.1}, "must be a mapping such as {'b': 0.1}, got 0.1"),
        ({"parametrization": "nkt"}, "parametrization must be standard or ntk, got 'nkt' (did you mean 'ntk'?)"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingStep(net_of(), **settings)
    assert words in str(caught.value)


@dataclass(frozen=True)
class Own(SGD):
    """A rule of the user's own."""

    name = "own"
    gradient_power = None


def test_a_rule_of_ones_own_says_how_its_step_scales() -> None:
    with pytest.raises(ConfigError, match=r"'own' does not say .*; set gradient_power"):
        TrainingStep(net_of(), Own(), parametrization="ntk")
    TrainingStep(net_of(), Own(), learning_rate_factors={"b": 0.1})


@pytest.mark.parametrize("rule", ["nesterov", "adamw"])
@pytest.mark.parametrize("case", cases())
def test_parity_finds_it_right(case: Case, rule: str) -> None:
    how = {"parametrization": "ntk", "learning_rate_factors": {"b": 0.1, "W1": 3.0}, "clip_norm": 0.05, "l2": 0.01}
    optimizer = {"name": rule, "average": 0.9, "weight_decay": 0.1}
    if not get_optimizer(rule).decays:
        del optimizer["weight_decay"]
    report = check(net_of(case, "float32"), X.T, Y.T, optimizer=optimizer, steps=2, epochs=2, batch_size=8, **how)
    assert report.ok, report.summary()


@pytest.mark.parametrize(
    ("fault", "tensor"),
    [("factor", "step numbers"), ("power", "step numbers"), ("epsilon", "theta"), ("lost", "calls")],
)
def test_parity_finds_faults_in_it(fault: str, tensor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = groups.Rule.step_scalars
    if fault in ("factor", "power"):
        changed = (
            (lambda rule: replace(rule, factor=1.0)) if fault == "factor" else (lambda rule: replace(rule, r=rule.r**2))
        )
        monkeypatch.setattr(groups.Rule, "step_scalars", lambda self, *given: honest(changed(self), *given))
    elif fault == "epsilon":
        monkeypatch.setattr(groups.Rule, "optimizer", lambda self, given: given)
    else:
        update = groups.ParameterGroups.update

        def without_the_last(self: Any, *args: Any, **how: Any) -> None:
            self.groups = self.groups[:-1]
            update(self, *args, **how)

        monkeypatch.setattr(groups.ParameterGroups, "update", without_the_last)
    how: dict[str, Any] = {"optimizer": {"name": "adam", "epsilon": 1e-2}, "parametrization": "ntk"}
    report = check(net_of(None, "float32"), X.T, Y.T, learning_rate_factors={"b": 0.1}, **how)
    assert report.first is not None
    assert report.first.tensor == tensor
