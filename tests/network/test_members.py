"""An ensemble in one step: each member is a network of its own, bit for bit; and what it shares with ordinary ones."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import same_bits
from support.poison import PoisonedKernels

from backprop_gpu.build import prepare
from backprop_gpu.config import validate
from backprop_gpu.errors import CheckpointError, ConfigError
from backprop_gpu.gradcheck import gradcheck
from backprop_gpu.maths.batch_ensemble import member_weights
from backprop_gpu.maths.ledger import Denominator
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.non_finite import find_non_finite
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.planning import plan
from backprop_gpu.tensor_file import read_tensors, write_tensors
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.epoch import CapturedEpoch
from backprop_gpu.training.trainer import Trainer

ADAPTERS = ("first", "all", "none")
SIZES = [7, 12, 9, 3]


def data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, SIZES[0])), rng.integers(0, SIZES[-1], n), rng.integers(0, 3, n) + 0.5


def ensemble(k: int, adapters: str, **settings: Any) -> DenseNet:
    """With adapters that have learned: every number of a member is its own."""
    given = {"activation": "tanh", "loss": "categorical_cross_entropy", "device": "numpy", "seed": 3} | settings
    net = DenseNet(SIZES, members=k, adapters=adapters, **given)
    rng = np.random.default_rng(k)
    named = {name: x + rng.normal(size=x.shape) / 8 for name, x in net.parameters().items()}
    net.set_parameters(named)
    return net


def of_member(net: DenseNet, j: int) -> DenseNet:
    """An ordinary network with the weights of member j."""
    named = net.parameters()
    own = {}
    for l in range(1, net.L + 1):
        W, b, n = named[f"W{l}"], named[f"b{l}"], net.sizes[l]
        W = W if len(W) == n else W[n * j : n * (j + 1)]
        if f"R{l}" in named:
            W = member_weights(np, W, named[f"R{l}"][j], named[f"S{l}"][j] if f"S{l}" in named else None)
        own |= {f"W{l}": W, f"b{l}": b if len(b) == n else b[n * j : n * (j + 1)]}
    settings = {name: x for name, x in net.settings().items() if name not in ("members", "adapters")}
    one = DenseNet(**settings, device=net.backend, kernels=net.kernels_kind)
    one.set_parameters(own)
    return one


def gradient(net: DenseNet, how: dict[str, Any], weighted: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
    X, y, w = data(50)
    step = TrainingStep(net, "sgd", **how)
    columns = net.upload_columns
    given = columns(X), columns(y[:, None]), columns(w[:, None]) if weighted else None
    step.gradient(*given, weights_sum=float(w.sum()) if weighted else None, micro_batch=32)
    return net.params.named(net.backend.to_host(net.params.grad)), net.backend.to_host(step.value)


@pytest.mark.parametrize("one_over_m", ["early", "late"])
@pytest.mark.parametrize("adapters", ADAPTERS)
@pytest.mark.parametrize("case", cases(without=["array_api_strict"]))
def test_the_gradient_of_32_members_is_that_of_32_networks(case: Case, adapters: str, one_over_m: str) -> None:
    """Bit for bit: 1/k = 2^-5 rounds nothing. What members share is the sum over members, in their order and
    micro-batch by micro-batch; R, S and what is their own are each network's.
    """
    k, how, kernels = 32, {"one_over_m": one_over_m}, case.kernels()
    net = ensemble(k, adapters, dtype="float32", device=case.backend, kernels=case.kind)
    got, J = gradient(net, how, weighted=True)
    theta, expected = net.parameters(), {name: np.zeros_like(x) for name, x in got.items()}
    nets = [of_member(net, j) for j in range(k)]
    X, y, w = data(50)
    costs = []
    for part in (slice(0, 32), slice(32, 50)):  # micro-batches
        for j, one in enumerate(nets):
            step = TrainingStep(one, "sgd", **how)
            columns = one.upload_columns
            step.gradient(columns(X[part]), columns(y[part, None]), columns(w[part, None]), weights_sum=float(w.sum()))
            costs.append(one.backend.to_host(step.value))
            found = {name: x / k for name, x in one.params.named(one.backend.to_host(one.params.grad)).items()}
            for l in range(1, net.L + 1):
                rows = slice(net.sizes[l] * j, net.sizes[l] * (j + 1))
                own_b = len(theta[f"b{l}"]) > net.sizes[l]
                expected[f"b{l}"][rows if own_b else slice(None)] += found[f"b{l}"]
                if f"R{l}" in theta:
                    given = {
                        "W": theta[f"W{l}"],
                        "r": theta[f"R{l}"][j],
                        "s": theta[f"S{l}"][j] if "S1" in theta else None,
                    }
                    out = {"dW": expected[f"W{l}"], "dr": expected[f"R{l}"][j]}
                    out |= {"ds": expected[f"S{l}"][j] if "S1" in theta else None}
                    put = {name: None if x is None else case.put(x, "float32") for name, x in (given | out).items()}
                    G = case.put(found[f"W{l}"], "float32")
                    kernels.member_weights_vjp(G, **put, accumulate=True, accumulate_own=True)
                    for name, x in out.items():
                        if x is not None:
                            x[...] = case.get(put[name])
                else:
                    own_W = len(theta[f"W{l}"]) > net.sizes[l]
                    expected[f"W{l}"][rows if own_W else slice(None)] += found[f"W{l}"]
    for name, x in expected.items():
        same_bits(got[name], x)
    assert abs(float(J[0]) - float(np.sum(costs)) / k) <= 1e-6


@pytest.mark.parametrize("adapters", ADAPTERS)
@pytest.mark.parametrize("case", cases())
def test_predictions_are_the_mean_of_the_networks(case: Case, adapters: str) -> None:
    """Of few rows, which are recorded, and of several blocks; cost is the mean of the members' costs."""
    net = ensemble(3, adapters, dtype="float64", device=case.backend, kernels=case.kind)
    nets = [of_member(net, j) for j in range(3)]
    for n in (5, 2100):
        X, y, w = data(n)
        AL = [one.predict_proba(X) for one in nets]
        same_bits(net.predict_proba(X), (AL[0] + AL[1] + AL[2]) / 3)
        same_bits(net.predict(X), (AL[0] + AL[1] + AL[2]).argmax(axis=1))
        wanted = np.mean([one.cost(X, y, w) for one in nets])
        assert abs(net.cost(X, y, w) - wanted) <= 1e-14 * n


@pytest.mark.parametrize(("adapters", "kernels"), [("first", "native"), ("all", "reference"), ("all", "native")])
def test_gradcheck(adapters: str, kernels: str) -> None:
    X, y, w = data(6)
    net = ensemble(3, adapters, dropout=[0.0, 0.3], input_scaling=True, kernels=kernels)
    for how in ({"l2": 0.1}, {"one_over_m": "late", "l1": 0.1}, {"reduction": "sum", "penalty_over": "none"}):
        report = gradcheck(net, X, y, w, **how)
        assert report.ok, report.summary()
        assert {t.name for t in report.tensors} >= {"R1", "W1", "W3", "b3", "scale0"}


def test_dropout_masks_of_members_differ_and_the_first_has_those_of_a_network() -> None:
    net = ensemble(3, "first", dropout=0.5, dtype="float64", activation="sigmoid", kernels="native")
    one = of_member(net, 0)
    X = data(40)[0]
    masks = []
    for network, j in ((one, 0), (net, 0), (net, 1), (net, 2)):
        ws = network.workspace(40)
        ws.A[0] = network.upload_columns(X)
        network.forward(ws, j)
        masks.append([ws.A[l] != 0.0 for l in (1, 2)])
    for l in (0, 1):
        same_bits(masks[0][l], masks[1][l])
        apart = [np.mean(masks[a][l] != masks[b][l]) for a, b in ((1, 2), (1, 3), (2, 3))]
        assert all(0.4 < share < 0.6 for share in apart)
    reference = DenseNet(**net.settings(), device="numpy", kernels="reference")
    ws = reference.workspace(40)
    ws.A[0] = reference.upload_columns(X)
    reference.forward(ws, 2)
    same_bits(ws.A[1] != 0.0, masks[3][0])


@pytest.mark.parametrize("adapters", ADAPTERS)
def test_recorded_training_resumes_with_the_same_bits(adapters: str, tmp_path: Path) -> None:
    """An epoch is the steps one by one; a state from the middle goes on; files and copies are the same."""
    X, y, w = data(70)

    def trained(start: int, end: int, state: Any = None, kernels: str = "native") -> TrainingStep:
        net = DenseNet(
            SIZES, members=4, adapters=adapters, loss="categorical_cross_entropy", dropout=0.2, kernels=kernels
        )
        step = TrainingStep(net, {"name": "adamw", "weight_decay": 0.1}, l2=0.01, clip_norm=0.5, total_steps=9)
        if state is not None:
            step.load_state_dict(state)
        columns = net.upload_columns
        for i in range(start, end):
            rows = slice(10 * i, 10 * (i + 1))
            step(columns(X[rows]), columns(y[rows, None]), columns(w[rows, None]))
        return step

    whole, half = trained(0, 7), trained(0, 3).state_dict()
    resumed = trained(3, 7, half)
    for name, x in whole.net.parameters().items():
        same_bits(resumed.net.parameters()[name], x)
    net = DenseNet(SIZES, members=4, adapters=adapters, loss="categorical_cross_entropy", dropout=0.2, kernels="native")
    step = TrainingStep(net, {"name": "adamw", "weight_decay": 0.1}, l2=0.01, clip_norm=0.5, total_steps=9)
    batches = Batches(net, X, y[:, None], w[:, None], batch_size=10, shuffle=False, seed=0)
    CapturedEpoch(step, batches, None).run(0)
    for name, x in whole.net.parameters().items():
        same_bits(net.parameters()[name], x)

    path = tmp_path / "ensemble.safetensors"
    net.save(path)
    for other in (DenseNet.load(path), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert other.spec() == net.spec()
        same_bits(other.predict_proba(X), net.predict_proba(X))
    plain = TrainingStep(DenseNet(SIZES, loss="categorical_cross_entropy", dropout=0.2), "adamw")
    with pytest.raises(ConfigError, match="members"):
        plain.load_state_dict(half)


def test_a_fit_with_validation_reports_what_the_network_gives() -> None:
    X, y, _ = data(200)
    net = ensemble(3, "first")
    history = Trainer(net, epochs=3, metrics=["accuracy"], progress=False).fit(X, y, validation=(X[:77], y[:77]))
    last = history.epochs[-1].validation
    assert abs(last["cost"] - net.cost(X[:77], y[:77])) <= 1e-6
    assert last["accuracy"] == np.mean(net.predict(X[:77]) == y[:77])


def test_an_ordinary_network_is_as_it_was(tmp_path: Path) -> None:
    """No word about members in its settings, its state and its file."""
    net = DenseNet(SIZES, loss="categorical_cross_entropy")
    assert not {"members", "adapters"} & net.settings().keys()
    assert not {"members", "adapters"} & TrainingStep(net).state_dict()["settings"].keys()
    net.save(tmp_path / "net.safetensors")
    assert b"members" not in (tmp_path / "net.safetensors").read_bytes()


def test_initial_values() -> None:
    """The first member's output layer is an ordinary network's, R1 random signs, the other adapters 1."""
    plain = DenseNet(SIZES, loss="categorical_cross_entropy", seed=5).parameters()
    named = DenseNet(SIZES, loss="categorical_cross_entropy", seed=5, members=32, adapters="all").parameters()
    for name in ("W1", "W2"):
        same_bits(named[name], plain[name])
    same_bits(named["W3"][:3], plain["W3"])
    assert len(np.unique(named["W3"])) == named["W3"].size
    assert named["R1"].shape == (32, 7)
    assert set(np.unique(named["R1"])) == {-1.0, 1.0}
    assert 0.35 < np.mean(named["R1"] > 0) < 0.65
    assert all(np.all(named[name] == 1.0) for name in ("S1", "R2", "S2"))
    assert named["b1"].shape == (32 * 12, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"members": 0}, "members must be a whole number from 1"),
        ({"members": True}, "members must be"),
        ({"members": 2.0}, "members must be"),
        ({"members": 2, "adapters": "last"}, "adapters must be first or all"),
        ({"members": 2, "batch_norm": True}, "leave batch_norm out"),
        ({"members": 2, "sizes": [7, 3]}, "hidden layer"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DenseNet(**({"sizes": SIZES, "loss": "categorical_cross_entropy"} | settings))


def test_a_file_with_adapters_of_another_size_is_refused(tmp_path: Path) -> None:
    """Before memory is taken for what it claims."""
    path = tmp_path / "ensemble.safetensors"
    ensemble(2, "first").save(path)
    tensors, description = read_tensors(path, "backprop_gpu/1", "model")
    tensors["R1"] = tensors["R1"][:, :-1].copy()
    write_tensors(path, tensors, description, "backprop_gpu/1")
    with pytest.raises(CheckpointError, match="R1 has shape"):
        DenseNet.load(path)


POISONED = [  # operation, output, call of the step; what is to be named
    ("member_weights", "out", 1, "W1 (weights of a member, layer 1)"),
    ("dense", "A", 4, "A2[1, 0] (forward, layer 2)"),
    ("dense_vjp_params", "dW", 6, "dW3[1, 0] (backward, layer 3)"),
    ("member_weights_vjp", "dW", 2, "dW1[1, 0] (backward to the weights that members share, layer 1)"),
    ("member_weights_vjp", "dr", 0, "dR1"),
    ("update", "theta", 0, "W3"),
]


@pytest.mark.parametrize(("operation", "output", "call", "words"), POISONED)
def test_a_number_that_is_not_finite_is_named(operation: str, output: str, call: int, words: str) -> None:
    X, y, _ = data(20)
    net = ensemble(3, "first")
    batches = Batches(net, X, y[:, None], None, batch_size=20, shuffle=False, seed=0)
    step, batch = TrainingStep(net), batches.buffers(20)
    step.load(step._table, [Denominator.of("mean", 20)])
    PoisonedKernels(step, operation, output, call, 0, (1, 0) if output in ("out", "A", "dW") else (1,))
    named = find_non_finite(step, step.program(step._table, step._values, batch, None))
    assert words in str(named).replace("W1[1, 0] (weights", "W1 (weights")


def test_yaml_reaches_the_network() -> None:
    config = validate({"data": {"source": "moons"}, "model": {"hidden": [8], "members": 3, "adapters": "all"}})
    net = prepare(config, progress=False).model.net
    assert (net.members, net.ensemble.adapters, net.settings()["members"]) == (3, "all", 3)
    for model in ({"hidden": [], "members": 3}, {"batch_norm": True, "members": 3}):
        with pytest.raises(ConfigError, match=r"model\.members"):
            validate({"model": model})


def test_the_plan_of_an_ensemble_names_its_operations() -> None:
    """And the memory that a fit takes, which members share but for their adapters and outputs."""
    config = validate({"data": {"source": "moons"}, "model": {"hidden": [64], "members": 32}, "kernels": "native"})
    made = plan(config)
    assert {"member_weights", "member_weights_vjp"} <= {choice.operation for choice in made.choices}
    assert all(choice.by == "native" for choice in made.choices if choice.operation.startswith("member"))
    assert made.recorded == "yes: one native program"
    net = DenseNet([2, 64, 1], members=32)
    assert made.memory.parameters == net.params.theta.nbytes
