"""Nets in one program have the bits of nets fitted one by one, leave it when they stop, and share what is the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_diabetes, load_iris
from support.estimators import same_bits

from backprop_gpu import MLPClassifier, MLPRegressor
from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.backends.cpu.thread_pool import Program
from backprop_gpu.estimators import tabular
from backprop_gpu.maths.optimizers import SGD
from backprop_gpu.network.dense_net import BLOCK_ROWS
from backprop_gpu.training import loop
from backprop_gpu.training.callbacks import Callback
from backprop_gpu.training.epoch import EpochProgram, JointEpoch

SHORT: dict[str, Any] = {
    "preset": "tabular",
    "n_members": 3,
    "max_iter": 25,
    "random_state": 0,
    "device": "cpu",
    "hidden_layer_sizes": (12, 7),
    "n_iter_no_change": 3,
    "learning_rate_init": 0.03,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "averaged weights, normalized layers": {"weight_average": 0.9, "batch_norm": True},
    "adaptive rates": {"solver": "sgd", "learning_rate": "adaptive", "dropout": 0.3, "clip_norm": 0.1},
    "rows as they come, float64": {"shuffle": False, "dtype": "float64", "alpha": 0.1},
}
needs_native = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason())
KERNELS = ["reference", pytest.param("native", marks=needs_native)]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[JointEpoch]:
    """The programs that are made from now on."""
    made: list[JointEpoch] = []

    class Noted(JointEpoch):
        def __init__(self, laps: Sequence[EpochProgram]) -> None:
            super().__init__(laps)
            made.append(self)

    monkeypatch.setattr(loop, "JointEpoch", Noted)
    return made


def same_members(one: Any, two: Any) -> bool:
    pairs = list(zip(one.members_, two.members_, strict=True))
    return all(same_bits(a, b) and a.loss_curve_ == b.loss_curve_ for a, b in pairs) and all(
        a.validation_loss_curve_ == b.validation_loss_curve_ for a, b in pairs
    )


def sizes(programs: Sequence[JointEpoch]) -> list[int]:
    return [len(program.programs) for program in programs]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_nets_in_one_program_have_the_bits_of_nets_fitted_one_by_one(
    settings: dict[str, Any], kernels: str, programs: list[JointEpoch]
) -> None:
    for kind, (X, y) in {
        MLPClassifier: load_iris(return_X_y=True),
        MLPRegressor: load_diabetes(return_X_y=True),
    }.items():
        given = {**SHORT, **settings, "kernels": kernels}
        weights = {} if kind is MLPClassifier else {"sample_weight": np.random.default_rng(0).uniform(0.0, 2.0, len(y))}
        programs.clear()
        together = kind(**given).fit(X, y, **weights)
        assert sizes(programs)[0] == 3
        assert sizes(programs) == sorted(set(sizes(programs)), reverse=True)  # anew for every net that leaves
        programs.clear()
        one_by_one = kind(**given, callbacks=[Callback()]).fit(X, y, **weights)
        assert sizes(programs) == [1, 1, 1]
        assert same_members(together, one_by_one)
        np.testing.assert_array_equal(together.predict(X), one_by_one.predict(X))
        alone = kind(**{**given, "n_members": 1}).fit(X, y, **weights)
        assert same_bits(alone.members_[0], together.members_[0])
        assert not same_bits(together.members_[1], together.members_[0])


def test_a_net_that_stops_leaves_and_the_others_go_on(programs: list[JointEpoch]) -> None:
    X, y = load_diabetes(return_X_y=True)
    net = MLPRegressor(**{**SHORT, "max_iter": 60, "random_state": 1}).fit(X, y)
    ends = [member.n_iter_ for member in net.members_]
    assert len(set(ends)) == 3, "the test needs nets that stop at different epochs"
    assert sizes(programs) == [3, 2, 1]
    steps = [lap.step.t for lap in programs[0].programs]
    assert steps == [n * len(lap.batches) for n, lap in zip(ends, programs[0].programs, strict=True)]


@needs_native
def test_the_program_is_one_native_program_over_rows_that_lie_there_once(programs: list[JointEpoch]) -> None:
    X, y = load_iris(return_X_y=True)
    MLPClassifier(**SHORT, kernels="native").fit(X, y)
    assert [type(replay) for replay, _ in programs[0].replays] == [Program] * len(programs[0].programs[0].parts)
    first, *others = programs[0].programs
    for lap in others:
        assert lap.step.net.kernels is first.step.net.kernels
        for mine, shared in zip(lap.batches.sources, first.batches.sources, strict=True):
            assert mine is shared
    chosen = [tuple(lap.batches.chosen) for lap in programs[0].programs]
    assert len(set(chosen)) == 3  # each holds out others


class Uneven:
    """A splitter that holds out more rows each time."""

    def __init__(self) -> None:
        self.times = 0

    def get_n_splits(self, X: Any = None, y: Any = None) -> int:
        return 1

    def split(self, X: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.times += 1
        at = np.arange(len(X))
        yield at[at % 10 > self.times // 2], at[at % 10 <= self.times // 2]


def test_nets_with_other_numbers_of_rows_have_other_programs(programs: list[JointEpoch]) -> None:
    X, y = load_diabetes(return_X_y=True)
    net = MLPRegressor(**SHORT, validation_fraction=Uneven()).fit(X, y)  # the second and the third hold out as many
    assert sorted(sizes(programs), reverse=True)[0] == 2
    found = {lap.batches.n for program in programs for lap in program.programs}
    assert len(found) == 2
    one_by_one = MLPRegressor(**SHORT, validation_fraction=Uneven(), callbacks=[Callback()]).fit(X, y)
    assert same_members(net, one_by_one)


def test_all_are_judged_on_a_given_set_which_lies_there_once(programs: list[JointEpoch]) -> None:
    X, y = load_diabetes(return_X_y=True)
    given = {"X_val": X[300:], "y_val": y[300:]}
    net = MLPRegressor(**SHORT).fit(X[:300], y[:300], **given)
    assert all(lap.batches.chosen is None for lap in programs[0].programs)
    one_by_one = MLPRegressor(**SHORT, callbacks=[Callback()]).fit(X[:300], y[:300], **given)
    assert same_members(net, one_by_one)


@dataclass(frozen=True)
class Interrupted(SGD):
    """Somebody presses Ctrl-C when the numbers of step ``at`` are made."""

    at: int = 0

    def scalars(self, t: int, learning_rate: float) -> tuple[float, ...]:
        if t == self.at:
            raise KeyboardInterrupt
        return super().scalars(t, learning_rate)


def test_an_interrupt_ends_all_nets_with_what_they_have() -> None:
    X, y = load_diabetes(return_X_y=True)
    steps = -(-300 // 32)
    given = {**SHORT, "learning_rate": {"name": "constant"}, "kernels": "native"}
    del given["learning_rate_init"]  # the solver has its own
    validation = {"X_val": X[300:], "y_val": y[300:]}
    stopped = Interrupted(learning_rate=0.01, at=4 * steps + 1)
    with pytest.warns(UserWarning, match="interrupted by user"):
        net = MLPRegressor(**given, solver=stopped).fit(X[:300], y[:300], **validation)
    assert [member.n_iter_ for member in net.members_] == [4, 4, 4]
    never = Interrupted(learning_rate=0.01)
    whole = MLPRegressor(**{**given, "max_iter": 4}, solver=never).fit(X[:300], y[:300], **validation)
    assert same_members(net, whole)
    with pytest.warns(UserWarning, match="interrupted by user"):  # one by one: those that have not begun are left out
        net = MLPRegressor(**given, solver=stopped, callbacks=[Callback()]).fit(X[:300], y[:300], **validation)
    assert [member.n_iter_ for member in net.members_] == [4]
    assert same_bits(net.members_[0], whole.members_[0])


def test_verbose_says_which_net(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = load_iris(return_X_y=True)
    MLPClassifier(**{**SHORT, "max_iter": 2}, verbose=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", ")[0] for line in lines] == [
        f"net {net}: Iteration {epoch}" for epoch in (1, 2) for net in (1, 2, 3)
    ]


def test_the_best_epoch_is_kept_as_it_was_judged() -> None:
    X, y = load_diabetes(return_X_y=True)
    for settings in ({"weight_average": 0.9}, {"batch_norm": True}):
        net = MLPRegressor(**SHORT, **settings).fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
        truth = (y[300:] - net.target_centre_) / net.target_spread_
        for member in net.members_:
            curve = member.validation_loss_curve_
            assert min(curve) < curve[-1]
            found = np.mean((member.predict(net.inputs_(X[300:])) - truth) ** 2) / 2.0
            assert found == pytest.approx(min(curve), rel=1e-5)


def test_predictions_of_many_rows_are_means_of_the_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = load_diabetes(return_X_y=True)
    net = MLPRegressor(**{**SHORT, "max_iter": 2}).fit(X, y)
    monkeypatch.setattr(tabular, "SCALED_ROWS", 2 * BLOCK_ROWS)
    many = np.tile(X, (3 * BLOCK_ROWS // len(X) + 1, 1))
    each = [member.predict(net.inputs_(many)) for member in net.members_]
    wanted = np.mean(each, axis=0) * net.target_spread_ + net.target_centre_
    np.testing.assert_allclose(net.predict(many), wanted, rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(net.predict(csr_array(many)), net.predict(many))
