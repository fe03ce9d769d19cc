"""What is set in the configuration reaches the network, the step and the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import quick
from support.tables import arrays, write_csv

from backprop_gpu.build import prepare, read_split
from backprop_gpu.config import validate

APART = (
    "threshold",
    "members",
    "adapters",
    "initialize_on_data",
)  # settings that the others exclude; their own tests ask for them


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


def test_every_setting_reaches_its_place() -> None:
    """A value for each key that is not its default, found again in the network, the trainer and the step."""
    X, y = arrays("multiclass")
    np.savez("data.npz", X=X, y=y)
    data: dict[str, Any] = {
        "seed": 5,
        "device": "cpu",
        "dtype": "float64",
        "kernels": "reference",
        "data": {"source": "data.npz", "task": "multiclass", "standardize": False, "validation": 0.3, "test": 0.1},
        "model": {
            "hidden": [7, 6],
            "activation": ["silu", {"name": "elu", "alpha": 0.5}],
            "initializer": "orthogonal",
            "dropout": [0.25, 0.5],
            "batch_norm": [True, False],
            "parametric_activation": [False, True],
            "input_scaling": True,
            "periodic_embedding": {"frequencies": 4, "outputs": 2, "sigma": 0.2},
        },
        "loss": {"label_smoothing": 0.1, "delta": "literal", "one_over_m": "late", "reduction": "sum"},
        "regularization": {"l1": 0.01, "l2": 0.02, "penalty_over": "none", "clip_norm": 3.0},
        "optimizer": {
            "name": "lion",
            "beta1": 0.8,
            "average": 0.9,
            "learning_rate_factors": {"b": 0.5},
            "parametrization": "ntk",
        },
        "schedule": {"name": "step", "every": 7},
        "training": {
            "epochs": 2,
            "batch_size": 16,
            "micro_batch": 5,
            "data_on": "host",
            "exact_ranks": True,
            "shuffle": False,
            "restore_best": False,
            "skip_non_finite": 3,
            "early_stopping": {"metric": "roc_auc", "patience": 9, "min_delta": 0.5},
            "metrics": ["log_loss"],
            "class_weight": {"2": 3.0},
            "layer_statistics": False,
        },
    }
    config = validate(data)
    defaults = validate({}).model_dump()
    for section in ("model", "regularization", "training"):
        given = config.model_dump()[section]
        assert all(given[key] != default for key, default in defaults[section].items() if key not in APART)
    experiment = prepare(config, progress=False)
    net, trainer, step = experiment.model.net, experiment.trainer, experiment.trainer.step

    assert net.spec() == {
        "sizes": [5, 7, 6, 3],
        "activation": data["model"]["activation"],
        "loss": {"name": "categorical_cross_entropy", "label_smoothing": 0.1},
        "initializer": "orthogonal",
        "dropout": [0.25, 0.5],
        "batch_norm": [True, False],
        "dtype": "float64",
        "seed": 5,
        "input_scaling": True,
        "periodic_embedding": {"frequencies": 4, "outputs": 2, "sigma": 0.2, "columns": 5},
        "parametric_activation": [False, True],
    }
    assert (net.kernels_kind, net.backend.name) == ("reference", "numpy")
    for key, value in data["regularization"].items():
        assert getattr(step, key) == value
    assert (step.delta, step.one_over_m, step.reduction) == ("literal", "late", "sum")
    assert step.optimizer.spec() == config.optimizer_spec()
    assert (step.groups.factors, step.groups.parametrization) == ({"b": 0.5}, "ntk")
    assert (step.schedule.name, vars(step.schedule)["every"]) == ("step", 7)
    rule = trainer.early_stopping
    assert rule is not None
    assert (rule.metric, rule.patience, rule.min_delta) == ("roc_auc", 9, 0.5)
    for key in (
        "epochs",
        "batch_size",
        "micro_batch",
        "exact_ranks",
        "data_on",
        "shuffle",
        "restore_best",
        "skip_non_finite",
    ):
        assert getattr(trainer, key) == data["training"][key]
    assert set(trainer.metrics) == {"log_loss", "roc_auc"}
    assert trainer.class_weight == {2: 3.0}
    assert (trainer.seed, trainer.callbacks) == (5, [])
    assert not experiment.model.preprocessor.mean.any()
    parts = [experiment.train.n_samples, experiment.validation.n_samples, experiment.test.n_samples]  # type: ignore[union-attr]
    assert parts == [72, 36, 12]


def test_every_setting_of_a_csv_reaches_the_reader() -> None:
    rows = [[str(i % 3), f"{i / 7:.2f}", "x", str(i % 5), "ab"[i % 2]] for i in range(60)]
    write_csv(Path("t.csv"), rows, ["code", "size", "note", "day", "y"], delimiter="|")
    data = {"source": "t.csv", "target": -1, "delimiter": "|", "categorical": ["code"]}
    table = prepare(quick(data=data | {"ignore": ["note"]}), progress=False).train
    assert (table.columns, set(table.categorical)) == (("code", "size", "day"), {"code"})
    table = prepare(quick(data=data | {"columns": ["day", "code"]}), progress=False).train
    assert (table.columns, table.target_names) == (("day", "code"), ("y",))
    moons = quick(data={"source": "moons", "options": {"n": 50, "noise": 0.0}})
    assert len(prepare(moons, progress=False).train.stored) == 50


def test_the_split_depends_on_the_seed_alone() -> None:
    first, again, other = (
        read_split(quick(seed=seed, optimizer={"name": n}))[2] for seed, n in [(0, "adam"), (0, "sgd"), (1, "adam")]
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.rows is not None
    np.testing.assert_array_equal(first.rows, again.rows)
    assert set(first.rows.tolist()) != set(other.rows.tolist())  # type: ignore[union-attr]
