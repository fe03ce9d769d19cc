"""The training loop: it learns, it repeats itself, it divides rightly, it ends cleanly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.small_nets import rows, small_net, two_moons

from backprop_gpu.backends.base import Backend
from backprop_gpu.backends.reference import ReferenceKernels
from backprop_gpu.errors import NonFiniteError
from backprop_gpu.maths.schedules import get_schedule
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.callbacks import Callback, Epoch, JsonLines, history_lines
from backprop_gpu.training.history import History
from backprop_gpu.training.trainer import Trainer

DEVICES = ("cpu", "array_api_strict:device1")


def fit(
    net: DenseNet, X: Any, y: Any, *, sample_weight: Any = None, validation: Any = None, **settings: Any
) -> History:
    """Train without a progress bar."""
    return Trainer(net, **({"progress": False} | settings)).fit(
        X, y, sample_weight=sample_weight, validation=validation
    )


def without_clock(history: History) -> list[tuple[Any, ...]]:
    """Everything of a history but the seconds, which no seed fixes."""
    return [(e.epoch, e.step, e.cost, e.learning_rate, e.validation) for e in history.epochs]


# --- it learns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_two_moons_are_told_apart(device: str) -> None:
    X, y = two_moons(400, seed=0)
    X_new, y_new = two_moons(500, seed=1)
    net = DenseNet([2, 16, 16, 1], activation="tanh", device=device)
    history = fit(net, X, y, optimizer={"name": "adam", "learning_rate": 0.01}, epochs=40)
    assert np.mean(net.predict(X_new) == y_new) >= 0.99  # a straight line reaches 0.88
    assert history.epochs[-1].cost < 0.05 < 0.35 < history.epochs[0].cost
    assert (history.stopped, history.best_epoch, history.notes) == ("epochs", 40, [])


@pytest.mark.parametrize("labels", ["classes", "column", "one-hot"])
def test_three_classes_from_any_form_of_labels(labels: str) -> None:
    rng = np.random.default_rng(2)
    classes = rng.integers(0, 3, 300)
    X = np.array([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])[classes] + 0.5 * rng.normal(size=(300, 2))
    y = {"classes": classes, "column": classes[:, None], "one-hot": np.eye(3)[classes]}[labels]
    net = DenseNet([2, 8, 3], loss="categorical_cross_entropy", device="cpu")
    history = fit(net, X, y, epochs=20, optimizer={"name": "adam", "learning_rate": 0.02})
    assert np.mean(net.predict(X) == classes) >= 0.98
    assert history.epochs[-1].cost < 0.1


def test_several_outputs_independent_labels_and_values() -> None:
    X = rows(3, n=400, seed=4)
    labels = np.stack([X[:, 0] > 0.0, X[:, 1] + X[:, 2] > 0.0], axis=1).astype(float)
    net = DenseNet([3, 12, 2], device="cpu")
    fit(net, X, labels, epochs=30, optimizer={"name": "adam", "learning_rate": 0.02})
    assert np.mean(net.predict(X) == labels) >= 0.98
    values = np.stack([X[:, 0] * 2.0 - 1.0, X[:, 1] - X[:, 2]], axis=1)
    net = DenseNet([3, 2], loss="squared_error", device="cpu")
    history = fit(net, X, values, epochs=60, optimizer={"name": "sgd", "learning_rate": 0.5})
    np.testing.assert_allclose(net.parameters()["W1"], [[2.0, 0.0, 0.0], [0.0, 1.0, -1.0]], atol=1e-4)
    assert history.epochs[-1].cost < 1e-9


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "categorical_cross_entropy", "poisson", "squared_error"])
def test_the_number_type_of_features_and_labels_makes_no_difference(loss: str, device: str) -> None:
    X = np.random.default_rng(5).integers(-3, 4, (20, 3))
    y = (X[:, 0] > 0).astype(np.int64)
    outputs = 2 if loss == "categorical_cross_entropy" else 1
    found = []
    for features, labels in (
        (X.astype(np.float64), y.astype(np.float64)),
        (X, y),
        (X.tolist(), y.tolist()),
        (X.astype(np.int8), y.astype(bool)),
        (X.astype(np.float32), y.astype(np.uint8)),
        (np.asfortranarray(X), y[:, None]),
    ):
        net = DenseNet([3, 4, outputs], activation="tanh", loss=loss, device=device)
        history = fit(net, features, labels, epochs=2, batch_size=7, validation=(features, labels))
        found.append((without_clock(history), net.parameters()))
    for history, parameters in found[1:]:
        assert history == found[0][0]
        for name, value in parameters.items():
            np.testing.assert_array_equal(value, found[0][1][name])


def test_one_hot_integers_are_targets_like_any_other() -> None:
    X, classes = rows(3, n=20), np.arange(20) % 3
    for device in DEVICES:
        one, other = (DenseNet([3, 4, 3], loss="categorical_cross_entropy", device=device) for _ in range(2))
        fit(one, X, np.eye(3)[classes], epochs=2)
        fit(other, X, np.eye(3, dtype=np.int64)[classes], epochs=2)
        np.testing.assert_array_equal(one.parameters()["W1"], other.parameters()["W1"])


# --- it repeats itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(device: str) -> None:
    X, y = two_moons(90, seed=3)

    def run(net_seed: int, order_seed: int) -> tuple[list[Any], np.ndarray]:
        net = DenseNet([2, 8, 1], dropout=0.2, device=device, seed=net_seed)
        history = fit(net, X, y, epochs=3, batch_size=16, seed=order_seed, validation=(X, y), metrics=["roc_auc"])
        return without_clock(history), net.backend.to_host(net.params.theta)

    history, theta = run(1, 1)
    again, theta_again = run(1, 1)
    assert again == history
    np.testing.assert_array_equal(theta_again, theta)
    for other in (run(2, 1), run(1, 2)):
        assert other[0] != history
        assert np.any(other[1] != theta)


def test_the_devices_follow_the_same_course() -> None:
    X, y = two_moons(60, seed=3)
    costs = []
    for device in DEVICES:
        net = DenseNet([2, 8, 1], activation="tanh", dropout=0.3, dtype="float64", device=device)
        costs.append([e.cost for e in fit(net, X, y, epochs=3, batch_size=16).epochs])
    # 12 steps of Adam in float64, each adding errors of some hundred roundings.
    np.testing.assert_allclose(costs[0], costs[1], rtol=1e-12)


def test_the_loop_is_a_step_on_each_batch_of_each_epochs_own_order() -> None:
    X, y = two_moons(20, seed=14)
    trained, by_hand = (small_net([2, 4, 1], dropout=0.25) for _ in range(2))
    fit(trained, X, y, epochs=3, batch_size=8, seed=5, optimizer="adam", l2=0.1)
    step = TrainingStep(by_hand, "adam", l2=0.1)
    batches = Batches(by_hand, X, y[:, None], None, batch_size=8, shuffle=True, seed=5)
    for epoch in range(3):
        order = batches.permutation(epoch)
        for start in (0, 8, 16):
            some = order[start : start + 8]
            step(by_hand.upload_columns(X[some]), by_hand.upload_columns(y[some, None]))
    np.testing.assert_array_equal(trained.params.theta, by_hand.params.theta)


# --- it divides rightly --------------------------------------------------------------------------------------------
# Small whole numbers and powers of two: every sum below is exact in float64, so that order and split cannot matter and
# equality is to the last bit.


def exact_problem(n: int) -> tuple[DenseNet, np.ndarray, np.ndarray]:
    """A ReLU network with squared error and SGD in which nothing is ever rounded, with n rows."""
    rng = np.random.default_rng(6)
    net = DenseNet([3, 4, 2], loss="squared_error", dtype="float64", device="cpu", initializer="zeros")
    net.set_parameters({k: rng.integers(-2, 3, v.shape).astype(float) for k, v in net.parameters().items()})
    return net, rng.integers(-3, 4, (n, 3)).astype(float), rng.integers(-3, 4, (n, 2)).astype(float)


EXACT = {"optimizer": {"name": "sgd", "learning_rate": 2.0**-6}, "l2": 0.25}


@pytest.mark.parametrize("micro_batch", [1, 3, 5, 8, 15, 16, 17, 400])
def test_micro_batches_of_any_size_give_the_same_weights(micro_batch: int) -> None:
    whole, X, y = exact_problem(32)
    parts, *_ = exact_problem(32)
    history = fit(whole, X, y, epochs=1, batch_size=16, **EXACT)
    history_in_parts = fit(parts, X, y, epochs=1, batch_size=16, micro_batch=micro_batch, **EXACT)
    np.testing.assert_array_equal(parts.params.theta, whole.params.theta)
    assert without_clock(history_in_parts) == without_clock(history)
    assert np.any(whole.params.theta != exact_problem(32)[0].params.theta)


def test_a_micro_batch_bounds_the_examples_of_a_pass() -> None:
    widths: list[int] = []

    class Counting(ReferenceKernels):
        def dense(self, W: Any, A_prev: Any, *given: Any, **out: Any) -> None:
            widths.append(A_prev.shape[1])
            super().dense(W, A_prev, *given, **out)

    class CountingBackend(Backend):
        def kernels(self, kind: str = "auto") -> Any:
            return Counting(self)

    net = DenseNet([3, 2], loss="squared_error", device=CountingBackend("numpy", np))
    fit(net, rows(3, n=22), rows(2, n=22), epochs=1, batch_size=16, micro_batch=5)
    assert widths == [5, 5, 5, 1, 5, 1, 5]  # the last to see what the last step made: no pass of training


@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_of_weight_zero_are_as_if_left_out(shuffle: bool) -> None:
    weighted, X, y = exact_problem(19)
    left_out, *_ = exact_problem(19)
    weights = np.array([0, 1, 2, 0, 1, 1, 1, 2, 1, 0, 0, 2, 1, 0, 1, 1, 2, 0, 0], dtype=float)
    keep = weights > 0.0
    assert weights.sum() == 16.0
    fit(weighted, X, y, sample_weight=weights, epochs=1, batch_size=19, shuffle=shuffle, **EXACT)
    kept = (X[keep], y[keep])
    fit(left_out, *kept, sample_weight=weights[keep], epochs=1, batch_size=19, shuffle=shuffle, **EXACT)
    np.testing.assert_array_equal(weighted.params.theta, left_out.params.theta)


def test_a_weight_of_two_is_the_row_twice() -> None:
    weighted, X, y = exact_problem(12)
    twice, *_ = exact_problem(12)
    weights = np.where(np.arange(12) < 4, 2.0, 1.0)
    fit(weighted, X, y, sample_weight=weights, epochs=1, batch_size=12, **EXACT)
    fit(twice, np.vstack([X, X[:4]]), np.vstack([y, y[:4]]), epochs=1, batch_size=16, **EXACT)
    np.testing.assert_array_equal(weighted.params.theta, twice.params.theta)


def test_a_batch_may_hold_nothing_but_rows_of_weight_zero() -> None:
    X, y = two_moons(40, seed=7)
    weights = np.where(np.arange(40) < 20, 0.0, 1.0)
    net = DenseNet([2, 4, 1], device="cpu")
    history = fit(net, X, y, sample_weight=weights, epochs=2, batch_size=10, shuffle=False)
    assert all(np.isfinite(e.cost) for e in history.epochs)
    alone = DenseNet([2, 4, 1], device="cpu")
    fit(alone, X[20:], y[20:], epochs=2, batch_size=10, shuffle=False)
    np.testing.assert_allclose(net.params.theta, alone.params.theta, rtol=1e-5)


def test_micro_batches_in_float32_stay_within_the_bound_of_their_sums() -> None:
    m, k, rate, u = 100, 7, 0.5, 2.0**-24
    X, y = rows(k, n=m, seed=8).astype(np.float32), (np.arange(m) % 2).astype(np.float32)
    results = []
    for micro_batch in (None, 1, 9, 50):
        net = small_net([k, 1], dtype="float32")
        W, b = net.parameters()["W1"], net.parameters()["b1"]
        fit(
            net, X, y, epochs=1, batch_size=m, micro_batch=micro_batch, optimizer={"name": "sgd", "learning_rate": rate}
        )
        results.append(net.parameters()["W1"])
    # dZ = (sigmoid(Z) - y) / m: an error of k + 1 roundings in Z, a quarter of it in sigmoid (its largest slope), and 8
    # roundings of its own; dW sums m products; theta is rounded twice. Two runs may err in opposite ways.
    size_Z = np.abs(W) @ np.abs(X.T) + np.abs(b)
    error_dZ = ((k + 1) * u * size_Z / 4.0 + 8 * u) / m
    size_dZ = 1.0 / m
    bound = 2.0 * (rate * (error_dZ + m * u * size_dZ) @ np.abs(X) + 2 * u * (np.abs(W) + rate * size_dZ * m))
    for other in results[1:]:
        assert np.all(np.abs(other.astype(float) - results[0]) <= bound)


# --- schedules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "end"),
    [
        ({"name": "cosine", "floor": 0.125}, 0.125),
        ({"name": "linear_warmup", "warmup": 4, "floor": 0.25}, 0.25),
        ({"name": "one_cycle", "final_div": 64.0}, 1.0 / 64.0),
        ("cosine", 0.0),
        ("constant", 1.0),
    ],
    ids=str,
)
def test_a_schedule_runs_over_all_steps_to_its_end(schedule: Any, end: float) -> None:
    X, y = two_moons(50, seed=9)
    settings = {"optimizer": {"name": "sgd", "learning_rate": 0.5}, "schedule": schedule}
    history = fit(DenseNet([2, 1], device="cpu"), X, y, epochs=3, batch_size=16, **settings)
    assert [e.step for e in history.epochs] == [4, 8, 12]  # three full batches and the tail, thrice
    factor = get_schedule(schedule).factor
    assert [e.learning_rate for e in history.epochs] == [0.5 * factor(t, 12) for t in (4, 8, 12)]
    assert history.epochs[-1].learning_rate == pytest.approx(0.5 * end, abs=1e-15)


def test_the_learning_rate_of_the_schedule_is_the_one_that_is_used() -> None:
    X, y = rows(2, n=4), np.array([0.0, 1.0, 1.0, 0.0])
    still, moving = (small_net([2, 1]) for _ in range(2))
    sgd, warm = {"name": "sgd", "learning_rate": 1.0}, {"name": "linear_warmup", "warmup": 4, "floor": 1.0}
    fit(moving, X, y, epochs=1, optimizer=sgd, schedule=warm)  # one step at a quarter of the rate
    fit(still, X, y, epochs=1, optimizer={"name": "sgd", "learning_rate": 0.25})
    np.testing.assert_array_equal(moving.params.theta, still.params.theta)


# --- notes, errors, interruptions ----------------------------------------------------------------------------------


def test_a_batch_larger_than_the_data_is_the_whole_data_and_noted() -> None:
    X, y = two_moons(20, seed=10)
    large, whole = (DenseNet([2, 4, 1], device="cpu") for _ in range(2))
    history = fit(large, X, y, epochs=3, batch_size=21)
    assert history.notes == ["batch_size 21 is larger than the 20 examples: one batch each epoch"]
    assert [e.step for e in history.epochs] == [1, 2, 3]
    assert fit(whole, X, y, epochs=3, batch_size=20).notes == []
    np.testing.assert_array_equal(large.params.theta, whole.params.theta)


class Recorder(Callback):
    """Notes every call, and raises ``error`` after the epoch ``at``."""

    def __init__(self, at: int = 0, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.calls: list[Any] = []
        self.at, self.error = at, error

    def on_start(self, epochs: int) -> None:
        self.calls.append(("start", epochs))

    def on_epoch(self, epoch: Epoch) -> None:
        self.calls.append(epoch.epoch)
        if epoch.epoch == self.at:
            raise self.error

    def on_end(self) -> None:
        self.calls.append("end")


@pytest.mark.parametrize("device", DEVICES)
def test_a_cost_that_is_no_longer_finite_names_the_epoch_and_the_cure(device: str) -> None:
    X, y = rows(3, n=16), rows(1, n=16, seed=11)
    net, recorder = DenseNet([3, 1], loss="squared_error", device=device), Recorder()
    with pytest.raises(NonFiniteError) as caught:
        fit(net, X, y, epochs=9, optimizer={"name": "sgd", "learning_rate": 1e30}, callbacks=[recorder])
    message = str(caught.value)
    # The first epoch still saw the initial weights.
    assert "inf in L[0, 0] (loss, layer 1) of training row 1 at step 2 (batch 1) in epoch 2" in message
    assert "lower optimizer.learning_rate (now 1e+30)" in message
    assert "\n" not in message
    assert recorder.calls == [("start", 9), 1, "end"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_ends_every_callback_and_leaves_the_history(error: type[BaseException], tmp_path: Any) -> None:
    X, y = two_moons(40, seed=12)
    lines, before, interrupter, after = JsonLines(tmp_path / "h.jsonl"), Recorder(), Recorder(3, error), Recorder()
    net = DenseNet([2, 4, 1], device="cpu")
    with pytest.raises(error):
        fit(net, X, y, epochs=10, callbacks=[lines, before, interrupter, after])
    assert before.calls == interrupter.calls == [("start", 10), 1, 2, 3, "end"]
    assert after.calls == [("start", 10), 1, 2, "end"]
    found = history_lines(tmp_path / "h.jsonl")
    assert [line["epoch"] for line in found] == [1, 2, 3]
    assert np.all(np.isfinite(net.params.theta))


def test_epochs_report_the_mean_cost_of_their_batches_penalty_included() -> None:
    X, y = two_moons(10, seed=13)
    net = small_net([2, 1])
    penalty = 0.125 * float(np.sum(net.parameters()["W1"] ** 2))
    before = net.cost(X, y)
    # So small a rate that the weights stand still: every batch sees the same network.
    history = fit(
        net,
        X,
        y,
        epochs=1,
        batch_size=4,
        optimizer={"name": "sgd", "learning_rate": 1e-300},
        l2=0.25,
        penalty_over="none",
    )
    assert history.epochs[0].cost == pytest.approx(before + penalty, rel=1e-14)


def test_another_fit_lets_go_of_the_buffers_of_the_one_before() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((90, 2)), rng.integers(0, 2, 90)
    trainer = Trainer(DenseNet([2, 4, 1], device="cpu"), epochs=1, batch_size=20, progress=False)
    for n in (90, 41, 55, 40, 7):
        trainer.fit(X[:n], y[:n])
        assert {ws.m for ws in trainer.step.workspaces} <= {min(n, 20), n % 20} - {0}
