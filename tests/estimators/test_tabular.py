"""preset="tabular": whose parameters win, members that differ, what is averaged, copies, refusals."""

from __future__ import annotations

import copy
import pickle
import warnings
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score

from backprop_gpu import MLPClassifier, MLPRegressor
from backprop_gpu.errors import ConfigError, DataError
from backprop_gpu.estimators.tabular import settings_for

SHORT: dict[str, Any] = {"preset": "tabular", "n_members": 2, "max_iter": 12, "random_state": 0, "device": "cpu"}


def moved(X: np.ndarray) -> np.ndarray:
    """Columns of very different sizes."""
    return X * 10.0 ** np.arange(-3, X.shape[1] - 3) + 7.0


@pytest.mark.parametrize("power", [-6, 0, 6])
def test_units_of_rows_and_targets_do_not_matter(power: int) -> None:
    X, y = load_diabetes(return_X_y=True)
    unit = 2.0**power  # exact in binary, so that the fits are the same to the bit
    direct = MLPRegressor(**SHORT).fit(X, y).predict(X)
    scaled = MLPRegressor(**SHORT).fit(X * unit, y * unit).predict(X * unit)
    np.testing.assert_array_equal(scaled, direct * unit)


def test_given_parameters_win_and_the_others_are_the_preset_s() -> None:
    plain = settings_for(MLPClassifier(preset="tabular"), 1_000)
    assert plain["solver"]["name"] == "adamw"
    assert (plain["batch_size"], plain["max_iter"], plain["dtype"]) == (32, 200, "float32")
    assert (settings_for(MLPClassifier(), 10**6)["batch_size"], settings_for(MLPClassifier(), 10**6)["max_iter"]) == (
        256,
        20,
    )
    given = {"solver": "sgd", "hidden_layer_sizes": [7], "dropout": 0.5, "dtype": "float64", "batch_size": 10}
    taken = settings_for(MLPClassifier(preset="tabular", **given), 1_000)
    assert {name: taken[name] for name in given} == given
    assert taken["activation"] == plain["activation"] != "relu"
    X, y = load_iris(return_X_y=True)
    net = MLPClassifier(**SHORT, hidden_layer_sizes=(7, 5), dtype="float64").fit(X, y)
    assert [c.shape for c in net.members_[0].coefs_] == [(4 + 4 * 8, 7), (7, 5), (5, 3)]  # the columns and their bins
    assert net.members_[0].coefs_[0].dtype == np.float64
    assert len(net.members_) == 2
    assert net.get_params()["hidden_layer_sizes"] == (7, 5)
    assert net.get_params()["activation"] == "relu"  # parameters are never written


def test_members_differ_and_their_probabilities_are_averaged() -> None:
    X, y = load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[y]
    net = MLPClassifier(**SHORT).fit(moved(X), names)
    one, two = (m.predict_proba(net.inputs_(moved(X))) for m in net.members_)
    assert not np.allclose(one, two)
    np.testing.assert_allclose(net.predict_proba(moved(X)), (one + two) / 2.0, rtol=1e-6)
    np.testing.assert_allclose(net.predict_proba(moved(X)).sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(net.classes_, ["a", "b", "c"])
    assert net.score(moved(X), names) > 0.85
    again = clone(net).fit(moved(X), names)
    np.testing.assert_array_equal(again.predict_proba(moved(X)), net.predict_proba(moved(X)))


def test_each_member_has_the_parameters_of_its_best_epoch() -> None:
    X, y = load_diabetes(return_X_y=True)
    net = MLPRegressor(**{**SHORT, "max_iter": 40, "n_iter_no_change": 4}, learning_rate_init=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # a schedule that has run to its end is none
        net.fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    scaled = (y[300:] - net.target_centre_) / net.target_spread_
    for member in net.members_:
        curve = member.validation_loss_curve_
        found = np.mean((member.predict(net.inputs_(X[300:])) - scaled) ** 2) / 2.0
        assert found == pytest.approx(min(curve), rel=1e-4)
        assert found < curve[-1]
        assert len(curve) == int(np.argmin(curve)) + 1 + 5 or len(curve) == 40


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_pickles_copies_and_files_predict_the_same(kind: Any, batch_norm: bool, tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True) if kind is MLPClassifier else load_diabetes(return_X_y=True)
    net = kind(**SHORT, hidden_layer_sizes=(9,), batch_norm=batch_norm).fit(X, y)
    net.to_safetensors(tmp_path / "net.safetensors")
    method = "predict_proba" if kind is MLPClassifier else "predict"
    wanted = getattr(net, method)(X)
    for other in (
        pickle.loads(pickle.dumps(net)),
        copy.deepcopy(net),
        kind.from_safetensors(tmp_path / "net.safetensors"),
    ):
        np.testing.assert_array_equal(getattr(other, method)(X), wanted)
        assert not hasattr(other, "coefs_")
        assert not hasattr(other, "norms_")
        assert [hasattr(member, "norms_") for member in other.members_] == [batch_norm] * 2
        assert (other.n_iter_, other.n_layers_) == (net.n_iter_, 3)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_larger_tables_have_nets_of_two_members_that_share_weights(kind: Any, tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((500, 3))
    y = (X[:, 0] > 0).astype(float)
    same = {"preset": "tabular", "max_iter": 2, "hidden_layer_sizes": (9,), "random_state": 0}
    net = kind(**same).fit(X, y)
    assert [len(vars(m)["norms_"]["R1"]) for m in net.members_] == [2] * 4
    assert [m.batch_ensemble for m in kind(**same).fit(X[:499], y[:499]).members_] == [1] * 4
    assert [m.batch_ensemble for m in kind(**same, n_members=1, batch_ensemble=3).fit(X, y).members_] == [3]
    assert [m.batch_ensemble for m in kind(**same, batch_norm=True).fit(X, y).members_] == [1] * 4
    net.to_safetensors(tmp_path / "net.safetensors")
    for other in (pickle.loads(pickle.dumps(net)), kind.from_safetensors(tmp_path / "net.safetensors")):
        np.testing.assert_array_equal(other.predict(X), net.predict(X))
    alone = kind(**same, batch_ensemble=2, initializer="pytorch_uniform", n_iter_no_change=20).fit(X, y)
    np.testing.assert_array_equal(alone.predict(X), net.predict(X))  # the same by hand


def test_one_kind_of_fit_after_the_other_leaves_nothing_behind() -> None:
    X, y = load_iris(return_X_y=True)
    net = MLPClassifier((5,), max_iter=3, random_state=0, n_members=1, device="cpu")
    with pytest.warns(ConvergenceWarning):
        plain = net.fit(X, y).predict_proba(X)
    net.set_params(preset="tabular").fit(X, y)
    assert not hasattr(net, "coefs_")
    with pytest.raises(ConfigError, match="members_"):
        net.network()
    with pytest.raises(ConfigError, match="members_"):
        net.to_sklearn()
    with pytest.warns(ConvergenceWarning):
        net.set_params(preset=None).fit(X, y)
    assert not hasattr(net, "members_")
    np.testing.assert_array_equal(net.predict_proba(X), plain)


def test_what_it_does_not_do_is_said() -> None:
    X, y = load_iris(return_X_y=True)
    assert not hasattr(MLPClassifier(preset="tabular"), "partial_fit")
    assert not hasattr(MLPRegressor(preset="tabular"), "partial_fit")
    with pytest.raises(ValueError, match="warm_start=False"):
        MLPClassifier(preset="tabular", warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="'preset' parameter of MLPClassifier"):
        MLPClassifier(preset="table").fit(X, y)
    with pytest.raises(ValueError, match="'n_members' parameter of MLPClassifier"):
        MLPClassifier(preset="tabular", n_members=0).fit(X, y)


def test_several_labels_several_outputs_counts_weights_and_few_rows() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    labels = (X[:, :2] > 0.0).astype(int)
    assert MLPClassifier(**SHORT).fit(X, labels).predict(X).shape == (60, 2)
    assert MLPRegressor(**SHORT).fit(X, X[:, :2] * 100.0).predict(X).shape == (60, 2)
    counts = MLPRegressor("poisson", **SHORT).fit(X, rng.poisson(3.0, 60))
    assert (counts.target_centre_, counts.target_spread_) == (0.0, 1.0)
    assert (counts.predict(X) > 0.0).all()
    assert MLPClassifier(**SHORT).fit(X[:8], labels[:8, 0]).predict(X).shape == (60,)  # none are held out
    spoiled = X.copy()
    spoiled[:5] = 1e12
    weights = (np.arange(60) >= 5).astype(float)
    net = MLPRegressor(**SHORT).fit(spoiled, X[:, 0], sample_weight=weights)
    np.testing.assert_allclose(net.inputs_.scale.centre, np.median(X[5:], axis=0))


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_rows_of_weight_zero_are_no_rows(kind: Any) -> None:
    X, y = load_diabetes(return_X_y=True)
    y = y if kind is MLPRegressor else np.where(y > 140.0, "high", "low")
    rng = np.random.default_rng(0)
    for share in (0.3, 0.9, 0.97):
        weights = np.where(rng.random(len(y)) < share, 0.0, 1.5)
        kept = weights > 0.0
        net = kind(**SHORT).fit(np.where(kept[:, None], X, 1e9), y, sample_weight=weights)
        other = kind(**SHORT).fit(X[kept], y[kept], sample_weight=weights[kept])
        np.testing.assert_array_equal(net.predict(X), other.predict(X))
    if kind is MLPClassifier:
        one = MLPClassifier(**SHORT, class_weight={"low": 0.0}).fit(X, y)
        assert set(one.predict(X)) == {"high"}


def test_metrics_are_in_the_units_of_y_and_the_end_says_what_was_watched(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = load_diabetes(return_X_y=True)
    settings = {**SHORT, "n_members": 1, "validation_metrics": ["rmse", "r2"], "n_iter_no_change": 1, "verbose": True}
    net = MLPRegressor(**settings, learning_rate_init=0.1).fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    curves, losses = net.members_[0].validation_metric_curves_, net.members_[0].validation_loss_curve_
    best = int(np.argmin(losses))
    assert curves["rmse"][best] == pytest.approx(np.sqrt(np.mean((net.predict(X[300:]) - y[300:]) ** 2)), rel=1e-5)
    assert curves["r2"][best] == pytest.approx(net.score(X[300:], y[300:]), rel=1e-4)
    assert curves["rmse"][best] == pytest.approx(np.sqrt(2.0 * losses[best]) * float(net.target_spread_[0]), rel=1e-4)
    split = MLPRegressor(**settings).fit(X, y)
    assert split.members_[0].validation_metric_curves_["rmse"][0] > 10.0
    assert "net 1: Validation loss did not improve for 1 consecutive epochs. Stopping." in capsys.readouterr().out


def test_it_beats_the_plain_net_on_columns_of_very_different_sizes() -> None:
    X, y = load_diabetes(return_X_y=True)
    net = MLPRegressor(**{**SHORT, "max_iter": 60})
    plain = MLPRegressor(random_state=0, max_iter=60, device="cpu", tol=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert cross_val_score(net, moved(X), y, cv=2).mean() > 0.3 > cross_val_score(plain, moved(X), y, cv=2).mean()


def frame(n: int) -> dict[str, list[Any]]:
    """Columns with a number with gaps, a text with gaps, and a date."""
    rng = np.random.default_rng(0)
    x = [None if i % 7 == 3 else float(v) for i, v in enumerate(rng.standard_normal(n))]
    city = [None if i % 11 == 0 else ["Bonn", "Ulm", "Aachen"][i % 3] for i in range(n)]
    return {"x": x, "city": city, "day": [date(2024, 1, 1) + timedelta(days=i) for i in range(n)]}


def test_data_frames_with_texts_dates_and_gaps_need_no_pipeline(tmp_path: Path) -> None:
    import pandas as pd
    import polars as pl

    columns = frame(120)
    y = np.array([{"Bonn": 1.0, "Ulm": -1.0}.get(city, 0.0) for city in columns["city"]])
    table = pd.DataFrame(columns).astype({"day": "datetime64[us]"})
    held_out = {"X_val": table[100:], "y_val": y[100:]}
    net = MLPRegressor(**SHORT | {"max_iter": 60}).fit(table[:100], y[:100], **held_out)
    assert net.n_features_in_ == 3
    assert list(net.feature_names_in_) == ["x", "city", "day"]
    assert net.columns_.kinds == ("number", "category", "date")
    assert net.columns_.categories[1] == ("", "Aachen", "Bonn", "Ulm")
    # x with bins and a gap, the day with bins and its five parts, four categories
    assert net.inputs_.width == (1 + 8 + 1) + (1 + 8 + 5) + 4
    found = net.predict(table)
    assert net.score(table, y) > 0.7
    of_polars = MLPRegressor(**SHORT | {"max_iter": 60})
    of_polars.fit(pl.DataFrame(columns)[:100], y[:100], X_val=pl.DataFrame(columns)[100:], y_val=y[100:])
    np.testing.assert_array_equal(of_polars.predict(table), found)
    np.testing.assert_array_equal(net.predict(table[["day", "city", "x"]].assign(more=1)), found)  # by name
    net.to_safetensors(tmp_path / "net.safetensors")
    for copied in (pickle.loads(pickle.dumps(net)), MLPRegressor.from_safetensors(tmp_path / "net.safetensors")):
        np.testing.assert_array_equal(copied.predict(table), found)
    assert np.isfinite(net.predict(table.assign(city="Kiel"))).all()  # which training did not see
    with pytest.raises(DataError, match=r"lacks the column 'city'"):
        net.predict(table.drop(columns="city"))
    with pytest.raises(DataError, match=r"row 0, column 'x': 'much' is not a number"):
        net.predict(table.assign(x="much"))


def test_arrays_may_have_gaps_and_texts_of_many_kinds_are_cut() -> None:
    import pandas as pd

    X, y = load_diabetes(return_X_y=True)
    X[::5, 2] = np.nan
    assert MLPRegressor(**SHORT).fit(X, y).score(X, y) > 0.3
    with pytest.raises(ValueError, match="NaN"):
        MLPRegressor(max_iter=2).fit(X, y)
    names = pd.DataFrame({"name": [f"n{i}" for i in range(150)], "x": np.arange(150.0)})
    with pytest.warns(UserWarning, match="column 'name' holds 150 different texts: the 100 most frequent are inputs"):
        net = MLPRegressor(**SHORT | {"max_iter": 2}).fit(names, np.arange(150.0))
    assert net.columns_.sizes == (100, 0)
