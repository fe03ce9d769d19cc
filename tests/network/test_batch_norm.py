"""A network with normalized layers: its parameters, its gradient, its statistics, and what predicts with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import same_bits
from support.small_nets import two_moons

from backprop_gpu import gradcheck
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.backends.cpu.thread_pool import Program
from backprop_gpu.errors import ConfigError, DataError, ShapeError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.model_file import load_model, save_model
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import BatchBuffers, Batches
from backprop_gpu.training.epoch import CapturedEpoch
from backprop_gpu.training.trainer import Trainer

SIZES = (3, 6, 5, 2)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)) * [1.0, 30.0, 0.1], RNG.normal(size=(12, 2))
W = np.array([1.0, 2.0, 0.0, 1.0, 3.0, 0.0, 0.5, 1.0, 1.0, 2.0, 0.0, 1.0])


def net_of(case: Case, dtype: str = "float64", **settings: Any) -> DenseNet:
    """Everything that starts at 0 or 1 is something else."""
    given = {"activation": "tanh", "loss": "squared_error", "batch_norm": True} | settings
    net = DenseNet(SIZES, device=case.backend, kernels=case.kind, dtype=dtype, **given)
    rng = np.random.default_rng(1)
    named = net.parameters()
    net.set_parameters({k: v + 0.2 * rng.random(v.shape) * (k[0] != "W") for k, v in named.items()})
    return net


def columns(net: DenseNet, *arrays: np.ndarray | None) -> list[Any]:
    return [None if x is None else net.upload_columns(x) for x in arrays]


def gradient(net: DenseNet, w: np.ndarray | None = None, rows: Any = slice(None), **how: Any) -> dict[str, np.ndarray]:
    """dJ/dtheta by name; the running statistics move."""
    size, settings = how.pop("micro_batch", None), how
    step = TrainingStep(net, "sgd", **settings)
    weights = None if w is None else w[rows, None]
    step.gradient(*columns(net, X[rows], Y[rows], weights), micro_batch=size)
    return net.params.named(net.backend.to_host(net.params.grad))


def close(a: dict[str, np.ndarray], b: dict[str, np.ndarray], rtol: float = 1e-11) -> None:
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=rtol, err_msg=name)


# --- parameters and state ------------------------------------------------------------------------------------------


def test_parameters_of_a_normalized_layer() -> None:
    net = DenseNet((3, 6, 5, 2), batch_norm=[True, False], device="numpy")
    assert [name for name, *_ in net.params.spans] == ["W3", "W2", "W1", "b3", "b2", "b1", "gamma1"]
    assert list(net.parameters()) == ["W1", "b1", "gamma1", "W2", "b2", "W3", "b3", "mean1", "variance1"]
    start = net.parameters()
    assert np.all(start["gamma1"] == 1.0)
    assert np.all(start["variance1"] == 1.0)
    assert not start["mean1"].any()
    assert net.n_parameters == 6 * 3 + 6 + 6 + 5 * 6 + 5 + 2 * 5 + 2
    assert net.params.gamma[2] is net.params.dgamma[2] is None
    # Where no layer is normalized, all is as it was.
    plain = DenseNet((3, 6, 5, 2), device="numpy")
    assert list(plain.parameters()) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    same_bits(plain.parameters()["W2"], start["W2"])


def test_specs_and_files_go_round(tmp_path: Path) -> None:
    net = net_of(Case("numpy"), "float32", batch_norm=[False, True], dropout=0.1)
    assert net.spec()["batch_norm"] == [False, True]
    gradient(net)
    save_model(tmp_path / "m.safetensors", net)
    other, _ = load_model(DenseNet, tmp_path / "m.safetensors", "array_api_strict:device1")
    assert other.spec() == net.spec()
    for name, value in net.parameters().items():
        same_bits(other.parameters()[name], value)
    np.testing.assert_allclose(other.predict(X), net.predict(X), rtol=1e-5)


def test_a_file_from_before_has_no_normalized_layers() -> None:
    spec = DenseNet(SIZES, device="numpy").spec()
    del spec["batch_norm"]
    assert DenseNet(**spec, device="numpy").batch_norm == [False] * 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([True], "2 hidden layers need 2 entries in batch_norm, got 1"),
        (1, "batch_norm must be true or false for each hidden layer, got 1"),
        ("yes", "batch_norm must be true or false for each hidden layer, got 'yes'"),
        ([True, None], "batch_norm must be true or false for each hidden layer, got None"),
    ],
)
def test_settings_that_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DenseNet(SIZES, batch_norm=given, device="numpy")
    assert str(caught.value) == words


def test_statistics_are_asked_for_like_parameters() -> None:
    net = net_of(Case("numpy"))
    named = net.parameters()
    del named["variance2"]
    with pytest.raises(ShapeError, match=r"parameter variance2 must be \(5, 1\), got nothing"):
        net.set_parameters(named)


# --- the gradient --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_over_m", ["early", "late"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", cases())
def test_the_gradient_is_that_of_the_cost(case: Case, weighted: bool, one_over_m: str) -> None:
    for activation, norm in (("tanh", True), ("gelu", [True, False]), ("relu", [False, True])):
        net = net_of(case, activation=activation, batch_norm=norm, dropout=[0.0, 0.3])
        report = gradcheck(net, X, Y, W if weighted else None, one_over_m=one_over_m, l2=0.1)
        assert report.ok, report
        assert {f"gamma{l}" for l in (1, 2) if net.batch_norm[l]} <= {t.name for t in report.tensors}


def test_central_differences_are_a_witness_apart() -> None:
    net = net_of(Case("numpy"))
    found, named, h = gradient(net), net.parameters(), 1e-5
    step = TrainingStep(net, "sgd")
    for name in found:
        for entry in np.ndindex(found[name].shape):
            costs = []
            for sign in (1.0, -1.0):
                moved = named[name].copy()
                moved[entry] += sign * h
                net.set_parameters(named | {name: moved})
                step.gradient(*columns(net, X, Y))
                costs.append(step.cost())
            assert (costs[0] - costs[1]) / (2.0 * h) == pytest.approx(found[name][entry], abs=3e-8)


@pytest.mark.parametrize("case", cases())
def test_early_and_late_are_one_gradient(case: Case) -> None:
    close(gradient(net_of(case), W), gradient(net_of(case), W, one_over_m="late"))


@pytest.mark.parametrize("case", cases())
def test_rows_of_weight_0_are_no_rows(case: Case) -> None:
    """The same gradient and the same running statistics, with them and without."""
    one, other = net_of(case), net_of(case)
    close(gradient(one, W), gradient(other, W, W > 0.0))
    close(one.parameters(), other.parameters())


@pytest.mark.parametrize("case", cases())
def test_a_weight_is_a_number_of_copies(case: Case) -> None:
    w = np.arange(12.0) % 3
    one, other = net_of(case), net_of(case)
    close(gradient(one, w), gradient(other, None, np.repeat(np.arange(12), w.astype(int))))
    close(one.parameters(), other.parameters())


@pytest.mark.parametrize("case", cases())
def test_micro_batches_are_normalized_one_by_one(case: Case) -> None:
    """The declared exception: their gradients add up, each by statistics of its own, and these move one by one.

    They are as equal as they can be: 12 examples, 5 at a time, are three parts of 4, not 5, 5 and 2.
    """
    split, parts = net_of(case), net_of(case)
    found = gradient(split, W, micro_batch=5)
    total: dict[str, np.ndarray] = {}
    for start in (0, 4, 8):
        rows = slice(start, start + 4)
        part = gradient(parts, W, rows, reduction="sum")
        total = {name: total.get(name, 0.0) + value / W.sum() for name, value in part.items()}
    close(found, total)
    close(split.parameters(), parts.parameters())
    whole = gradient(net_of(case), W)
    assert max(float(np.max(np.abs(whole[name] - found[name]))) for name in whole) > 1e-3


@pytest.mark.parametrize("case", cases())
def test_one_left_over_example_does_not_spoil_the_statistics(case: Case) -> None:
    """11 examples, 10 at a time: without a rule the last pass would have one, whose variance is 0."""
    net = net_of(case)
    before = net.parameters()
    gradient(net, rows=slice(0, 11), micro_batch=10)
    Z = before["W1"] @ X[:11].T
    variance = before["variance1"]
    for part in (Z[:, :6], Z[:, 6:]):
        variance = 0.9 * variance + 0.1 * part.var(axis=1, keepdims=True)
    np.testing.assert_allclose(net.parameters()["variance1"], variance, rtol=1e-12)


@pytest.mark.parametrize("case", cases())
def test_what_has_no_variance_is_refused(case: Case) -> None:
    """One example is normalized to 0, whatever it holds: a step with it would teach nothing below the layer."""
    net = net_of(case)
    before = net.parameters()
    with pytest.raises(DataError, match="at least 2 examples in a batch, got 1: pass more at a time, or leave batch_n"):
        gradient(net, rows=slice(0, 1))
    with pytest.raises(ConfigError, match="micro_batch must be at least 2 with batch_norm"):
        gradient(net, micro_batch=1)
    for name, value in net.parameters().items():
        same_bits(value, before[name])
    gradient(net, rows=slice(0, 2))


@pytest.mark.parametrize("case", cases())
def test_stretching_weights_below_a_normalized_layer_changes_almost_nothing(case: Case) -> None:
    """J depends on a unit's incoming weights through eps alone, so their gradient is orthogonal to them."""
    net = net_of(case)
    W1 = net.parameters()["W1"]
    along = np.sum(gradient(net)["W1"] * W1, axis=1)
    assert np.max(np.abs(along)) < 1e-5


@pytest.mark.parametrize("case", cases())
def test_penalty_and_decay_spare_gamma_and_beta(case: Case) -> None:
    plain, punished = gradient(net_of(case)), net_of(case)
    step = TrainingStep(punished, "sgd", l2=0.5, l1=0.1)
    step.gradient(*columns(punished, X, Y))
    step.penalty()
    found = punished.params.named(punished.backend.to_host(punished.params.grad))
    for name, value in found.items():
        assert np.array_equal(value, plain[name]) == (name[0] != "W")
    decayed, kept = net_of(case), net_of(case)
    for net, decay in ((decayed, 0.5), (kept, 0.0)):
        step = TrainingStep(net, {"name": "adamw", "weight_decay": decay})
        step(*columns(net, X, Y))
    for name, value in decayed.parameters().items():
        assert np.array_equal(value, kept.parameters()[name]) == (name[0] != "W")


# --- statistics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases())
def test_running_statistics_are_those_of_the_affine_part(case: Case) -> None:
    net = net_of(case)
    before = net.parameters()
    gradient(net, W)
    Z = before["W1"] @ X.T
    share = W / W.sum()
    mean = (Z * share).sum(axis=1, keepdims=True)
    variance = ((Z - mean) ** 2 * share).sum(axis=1, keepdims=True)
    after = net.parameters()
    np.testing.assert_allclose(after["mean1"], 0.9 * before["mean1"] + 0.1 * mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(after["variance1"], 0.9 * before["variance1"] + 0.1 * variance, rtol=1e-12)


@pytest.mark.parametrize("case", cases())
def test_prediction_is_by_the_running_statistics_row_by_row(case: Case) -> None:
    net = net_of(case, "float64", activation="tanh")
    p, A = net.parameters(), X.T
    for l in (1, 2):
        Z = p[f"W{l}"] @ A
        A = np.tanh(p[f"gamma{l}"] * (Z - p[f"mean{l}"]) / np.sqrt(p[f"variance{l}"] + 1e-5) + p[f"b{l}"])
    np.testing.assert_allclose(net.predict(X), (p["W3"] @ A + p["b3"]).T, rtol=1e-10)
    np.testing.assert_allclose(net.predict(X[4:5]), net.predict(X)[4:5], rtol=1e-10)
    for name, value in net.parameters().items():
        same_bits(value, p[name])  # looking at rows moves nothing
    assert net.cost(X, Y) == pytest.approx(np.mean(0.25 * np.sum((net.predict(X) - Y) ** 2, axis=1)), rel=1e-12)


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_native_kernels_record_it_and_play_what_python_would_run(dtype: str) -> None:
    case = Case("numpy", "native")
    runs = []
    for played in (True, False):
        net = net_of(case, dtype, dropout=[0.2, 0.0])
        step = TrainingStep(net, "adam")
        w = np.random.default_rng(5).random((12, 1)) + 0.5
        epochs = CapturedEpoch(step, Batches(net, X[1:], Y[1:], w[1:], batch_size=5, shuffle=True, seed=0), 3)
        assert all(isinstance(replay, Program) for replay, _ in epochs.replays)
        if not played:
            programs = [
                step.program(epochs.program.table, epochs.program.values, BatchBuffers(epochs.batches, m), 3)
                for m in (4, 3)
            ]
            counts = [times for _, times in epochs.replays]
            epochs.replays = [
                (lambda times, before=None, program=program: [program() for _ in range(times)], times)  # type: ignore[misc]
                for program, times in zip(programs, counts, strict=True)
            ]
        costs = [epochs.run(epoch) for epoch in range(3)]
        runs.append((np.concatenate(costs), net.parameters()))
    same_bits(runs[0][0], runs[1][0])
    for name, value in runs[0][1].items():
        same_bits(value, runs[1][1][name])


@pytest.mark.parametrize("data_on", ["device", "host"])
@pytest.mark.parametrize("case", cases())
def test_rows_left_over_do_not_spoil_the_statistics(case: Case, data_on: str) -> None:
    """Whatever the number of rows: the running variances are those of the rows, within what a batch of 20 varies by.

    A last batch of one row, whose variance is 0, would take a tenth off.
    """
    rng = np.random.default_rng(0)
    for n in (120, 121):
        rows, y = rng.normal(size=(n, 4)), rng.normal(size=n)
        net = DenseNet([4, 6, 5, 1], batch_norm=True, loss="squared_error", device=case.backend, kernels=case.kind)
        optimizer = {"name": "sgd", "learning_rate": 1e-6}
        settings = {"batch_size": 60, "epochs": 60, "data_on": data_on, "progress": False}
        Trainer(net, optimizer=optimizer, **settings).fit(rows, y)
        p = net.parameters()
        np.testing.assert_allclose(p["variance1"].ravel(), (p["W1"] @ rows.T).var(axis=1), rtol=0.05)


def test_a_network_cannot_be_trained_on_single_rows() -> None:
    rows, y = np.ones((4, 3)), np.zeros((4, 2))
    with pytest.raises(ConfigError, match="batch_size must be at least 2 with batch_norm"):
        Trainer(net_of(Case("numpy")), batch_size=1, progress=False).fit(rows, y)
    with pytest.raises(DataError, match="at least 2 rows to train on, got 1: pass more rows at a time, or leave"):
        Trainer(net_of(Case("numpy")), progress=False).fit(rows[:1], y[:1])
    with pytest.raises(ConfigError, match="micro_batch must be at least 2 with batch_norm"):
        Trainer(net_of(Case("numpy")), micro_batch=1, progress=False).fit(rows, y)


@pytest.mark.parametrize("case", cases())
def test_two_moons_are_told_apart(case: Case) -> None:
    """With batches of 16 from 250 rows, the last of ten: what predicts new rows are the running statistics."""
    X, y = two_moons(250, seed=0)
    X_new, y_new = two_moons(500, seed=1)
    net = DenseNet([2, 16, 16, 1], batch_norm=True, device=case.backend, kernels=case.kind)
    trainer = Trainer(net, optimizer={"name": "adam", "learning_rate": 0.01}, batch_size=16, epochs=25, progress=False)
    history = trainer.fit(X, y)
    assert np.mean(net.predict(X_new) == y_new) >= 0.98
    assert net.cost(X, y) < 0.1 < history.epochs[0].cost


def test_the_best_epoch_comes_back_with_its_statistics() -> None:
    X, y = two_moons(80, seed=0)
    net = DenseNet([2, 8, 1], batch_norm=True, device="numpy")
    trainer = Trainer(net, optimizer={"name": "sgd", "learning_rate": 5.0}, epochs=4, progress=False)
    history = trainer.fit(X, y, validation=(X, y))
    costs = [e.validation["cost"] for e in history.epochs]
    assert history.best_epoch == 1 + int(np.argmin(costs)) < 4
    assert net.cost(X, y) == min(costs)
