"""``preset: tabular`` in a configuration: the estimator's inputs, settings and bits; what is given wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tables import write_csv

from backprop_gpu import presets
from backprop_gpu.build import load, prepare
from backprop_gpu.cli import main
from backprop_gpu.config import Config, validate
from backprop_gpu.config_reading import load_config
from backprop_gpu.errors import ConfigError
from backprop_gpu.estimators import MLPClassifier
from backprop_gpu.estimators.fitted_network import named_of
from backprop_gpu.estimators.tabular import settings_for
from backprop_gpu.run_fit import encoded, fit

HEADER = ("x", "city", "day", "bought", "part")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def shop_rows(n: int = 140, trained: int = 100) -> list[list[str]]:
    """A number and a text with gaps, a date, and an answer that follows; some to train on, others to validate."""
    rng = np.random.default_rng(0)
    found = []
    for i, x in enumerate(np.round(rng.standard_normal(n), 3)):
        city = "" if i % 11 == 0 else ("Bonn", "Ulm", "Aachen")[i % 3]
        day = np.datetime64("2024-01-01") + i
        answer = "yes" if x + (city == "Bonn") > 0.4 else "no"
        part = "train" if i < trained else "validation"
        found.append(["" if i % 7 == 3 else str(x), city, str(day), answer, part])
    write_csv(Path("shop.csv"), found, HEADER)
    return found


def shop(**sections: Any) -> Config:
    data = {"source": "shop.csv", "target": "bought", "split_column": "part"}
    return validate({"preset": "tabular", "device": "cpu", "data": data, **sections})


def frames(rows: list[list[str]]) -> list[tuple[Any, Any]]:
    """(X, y) of training and validation rows, as pandas has them."""
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(rows, columns=HEADER)
    table["x"], table["day"] = pd.to_numeric(table["x"]), pd.to_datetime(table["day"])
    table["city"] = table["city"].replace("", None)
    parts = (table[table["part"] == part] for part in ("train", "validation"))
    return [(part[["x", "city", "day"]], part["bought"]) for part in parts]


@pytest.mark.parametrize("small", [True, False])
def test_inputs_and_training_have_the_estimator_s_bits(small: bool) -> None:
    """From equal rows, weights and order; dropout's masks too. One net, of a larger table with 8 members."""
    (X, y), (X_val, y_val) = frames(shop_rows(*((140, 100) if small else (560, 520))))
    same = {"preset": "tabular", "shuffle": False, "random_state": 0, "device": "cpu"}
    same |= {"n_members": 1} if small else {"n_members": 1, "batch_ensemble": 8}
    given = {"X_val": X_val, "y_val": y_val}
    start = MLPClassifier(**same, learning_rate_init=1e-30, max_iter=1).fit(X, y, **given).members_[0]
    wanted = MLPClassifier(**same, max_iter=5).fit(X, y, **given)
    seed = vars(wanted.members_[0])["_seed"]
    only = {"model": {"members": 1}} if small else {}
    config = shop(seed=seed, training={"epochs": 5, "shuffle": False}, **only)
    experiment = prepare(config, progress=False)
    train, held_out = encoded(experiment)
    np.testing.assert_array_equal(train[0], wanted.inputs_(wanted.columns_.codes(X)).astype(np.float32))
    net = experiment.model.net
    assert (experiment.config.training.batch_size, net.members) == (32, 1 if small else 8)
    named = named_of(vars(start))  # a step of 1e-30 has left them as they were, but for biases of 0
    net.set_parameters({name: x if name[0] != "b" else 0.0 * x for name, x in named.items()})
    fit(experiment, train, held_out)
    for name, x in named_of(vars(wanted.members_[0])).items():
        np.testing.assert_array_equal(net.parameters()[name], x)
    np.testing.assert_array_equal(experiment.model.predict_proba(X_val)[:, 0], wanted.predict_proba(X_val)[:, 1])


@pytest.mark.parametrize("n", [40, 499, 500, 5_000, 60_000, 10**6])
def test_small_and_large_tables_have_the_estimator_s_settings(n: int) -> None:
    estimator = MLPClassifier(preset="tabular")
    config, wanted = shop().for_rows(n), settings_for(estimator, n)
    m, t, o = config.model, config.training, config.optimizer
    assert (t.epochs, t.batch_size) == (wanted["max_iter"], wanted["batch_size"])
    assert (tuple(m.hidden), m.activation) == (wanted["hidden_layer_sizes"], wanted["activation"])
    assert (m.dropout, m.initializer) == (wanted["dropout"], wanted["initializer"])
    assert {"name": o.name, "weight_decay": o.weight_decay} == wanted["solver"]
    assert (o.learning_rate, config.schedule.name) == (wanted["learning_rate_init"], wanted["learning_rate"])
    assert (t.early_stopping.patience, config.data.validation) == (wanted["n_iter_no_change"], 0.15)
    assert wanted["validation_fraction"] == 0.15
    if n < 500:
        assert (m.members, m.adapters) == (estimator.n_members, "none") == (4, "none")
    else:
        assert (m.members, m.adapters) == (estimator.n_members * wanted["batch_ensemble"], "first") == (8, "first")


def test_what_is_given_wins_and_a_saved_configuration_stays_as_it_is() -> None:
    config = shop(
        model={"hidden": [7]},
        optimizer={"learning_rate": 0.5},
        schedule="constant",
        training={"epochs": 9, "early_stopping": None},
    )
    assert (config.model.hidden, config.model.dropout) == ([7], presets.DROPOUT)
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adamw", 0.5)
    assert config.optimizer.weight_decay == presets.WEIGHT_DECAY
    assert (config.schedule.name, config.training.early_stopping) == ("constant", None)
    wide = shop(model={"members": 16, "batch_norm": False}).for_rows(5_000).model
    assert (wide.members, wide.adapters, wide.initializer) == (16, "first", "pytorch_uniform")
    alone = shop(model={"batch_norm": True}).for_rows(5_000).model
    assert (alone.members, alone.initializer) == (1, "auto")
    assert shop(optimizer="sgd").optimizer.learning_rate == validate({"optimizer": "sgd"}).optimizer.learning_rate
    Path("saved.yaml").write_text(config.for_rows(100).to_yaml(), encoding="utf-8")
    saved = load_config("saved.yaml")
    assert saved == config.for_rows(100)
    assert (saved.training.epochs, saved.training.batch_size) == (9, 32)
    with pytest.raises(ConfigError, match=r"preset.*tabular"):
        validate({"preset": "tables"})


def test_from_the_command_line_to_predictions_of_unseen_categories(capsys: pytest.CaptureFixture[str]) -> None:
    """``config init`` writes it; ``train --preset`` trains; the saved model gives what the one in memory gives."""
    shop_rows()
    assert main(["config", "init", "shop.csv", "--target", "bought", "--out", "shop.yaml"]) == 0
    first = load_config("shop.yaml")
    assert (first.preset, first.data.piecewise_linear) == ("tabular", presets.BINS)
    words = ["shop.csv", "--target", "bought", "--preset", "tabular", "--set", "training.epochs=3", "--run-dir", "run"]
    assert main(["train", *words]) == 0
    assert "1, and 8 bins, and 1 that marks gaps" in Path("run/report.html").read_text(encoding="utf-8")
    model = load("run")
    assert (model.net.members, model.net.sizes[1:]) == (4, (128, 64, 1))
    names = model.feature_names
    assert names[:2] == ("x", "day")
    assert [name for name in names if name.startswith("x in ")] == list(names[8:16])
    found = model.predict_proba([{"x": 0.1, "city": "Kiel", "day": "2024-03-01", "part": "train"}, {}])
    assert np.isfinite(found).all()
    assert main(["predict", "run", "shop.csv"]) == 0
    assert main(["evaluate", "run", "shop.csv"]) == 0
    assert set(model.permutation_importance("shop.csv", repeats=1).columns) == {"x", "city", "day", "part"}
    capsys.readouterr()
