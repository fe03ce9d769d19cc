"""The run folder: what is in it, what it reproduces, and what is found wrong before it is made."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from support.runs import quick, run, strict_json, timeless
from support.tables import arrays, shop_rows, write_csv

from backprop_gpu import build
from backprop_gpu.build import load, prepare, read_split, train
from backprop_gpu.config import Config, validate
from backprop_gpu.config_reading import load_config
from backprop_gpu.errors import CheckpointError, ConfigError, DataError, NonFiniteError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.model_file import save_model
from backprop_gpu.run_folder import check_run_dir


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


# -- the run folder --------------------------------------------------------------------------------------------------


def test_the_folder_is_readable_without_this_package() -> None:
    outcome = run("r")
    folder = Path("r")
    assert {path.name for path in folder.iterdir()} == {
        "checkpoints",
        "config.yaml",
        "history.jsonl",
        "metrics.json",
        "model.safetensors",
    }
    written = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert (written["name"], written["model"]["hidden"], written["loss"]["name"]) == (
        "quick",
        [6],
        "binary_cross_entropy",
    )

    epochs = [strict_json(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert all(np.isfinite([epoch["cost"], epoch["validation"]["cost"], epoch["seconds"]]).all() for epoch in epochs)

    metrics = strict_json((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == outcome.metrics
    assert (metrics["device"], metrics["sizes"], metrics["parameters"]) == ("numpy", [30, 6, 1], 30 * 6 + 6 + 6 + 1)
    assert sum(metrics[part]["rows"] for part in ("train", "validation", "test")) == 569
    for part in ("train", "validation", "test"):
        matrix = np.array(metrics[part]["confusion_matrix"]["rows_true"])
        assert matrix.sum() == metrics[part]["rows"]
        assert np.trace(matrix) / matrix.sum() == pytest.approx(metrics[part]["accuracy"], rel=1e-12)

    tensors = load_file(folder / "model.safetensors")
    for name, value in outcome.model.net.parameters().items():
        assert tensors[name].shape == value.shape
        np.testing.assert_array_equal(tensors[name], value)


def test_the_history_ends_with_the_epoch_that_is_kept() -> None:
    outcome = run(
        "r", quick(training={"epochs": 40, "early_stopping": {"patience": 3}}, optimizer={"learning_rate": 0.05})
    )
    costs = [epoch.validation["cost"] for epoch in outcome.history.epochs]
    assert outcome.metrics["best_epoch"] == 1 + int(np.argmin(costs))
    assert outcome.metrics["validation"]["cost"] == pytest.approx(min(costs), rel=1e-6)
    assert (outcome.metrics["stopped"], len(costs)) == ("early stopping", outcome.metrics["best_epoch"] + 3)


def test_a_batch_larger_than_the_data_works_with_a_note() -> None:
    outcome = run("r", quick(training={"batch_size": 10_000}))
    assert outcome.metrics["steps"] == 3
    (note,) = outcome.metrics["notes"]
    assert "10000" in note
    assert str(outcome.metrics["train"]["rows"]) in note


def test_runs_without_held_out_rows() -> None:
    outcome = run("r", quick(data={"validation": 0, "test": 0}))
    assert outcome.metrics["train"]["rows"] == 569
    assert not {"validation", "test"} & set(outcome.metrics)
    assert outcome.metrics["best_epoch"] == 3


# -- reproduction ----------------------------------------------------------------------------------------------------

DROPOUT = {
    "model": {"hidden": [6, 5], "dropout": 0.2},
    "optimizer": {"name": "adamw"},
    "schedule": {"name": "one_cycle"},
}


def test_the_same_configuration_gives_the_same_bits() -> None:
    first, second = run("a", quick(**DROPOUT)), run("b", quick(**DROPOUT))
    assert Path("a/model.safetensors").read_bytes() == Path("b/model.safetensors").read_bytes()
    assert Path("a/config.yaml").read_bytes() == Path("b/config.yaml").read_bytes()
    assert timeless(first.metrics) == timeless(second.metrics)
    for one, other in zip(first.history.epochs, second.history.epochs, strict=True):
        assert (one.cost, one.validation) == (other.cost, other.validation)


def test_another_seed_gives_another_run() -> None:
    first, second = run("a"), run("b", quick(seed=1))
    assert first.metrics["train"]["cost"] != second.metrics["train"]["cost"]
    assert Path("a/model.safetensors").read_bytes() != Path("b/model.safetensors").read_bytes()


def test_the_configuration_in_the_folder_reproduces_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(Path("shop.csv"), shop_rows())
    monkeypatch.setenv("BACKPROP_GPU_DEVICE", "array_api_strict:device1")
    overrides = ["data.source=shop.csv", "data.target=kauft", "training.epochs=2", "model.dropout=0.1", "name=shop-1e3"]
    train("breast_cancer", overrides=overrides, run_dir="a", progress=False)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE")
    again = train("a/config.yaml", run_dir="b", progress=False)
    assert again.metrics["device"] == "array_api_strict:device1"
    for name in ("model.safetensors", "config.yaml"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()


def test_the_test_rows_can_be_had_again() -> None:
    outcome = run("a")
    model = load("a", "cpu")
    parts = dict(zip(("train", "validation", "test"), read_split(load_config("a/config.yaml")), strict=True))
    for part, table in parts.items():
        assert table is not None
        again = model.evaluate(table)
        assert again.pop("confusion_matrix") == outcome.metrics[part].pop("confusion_matrix")
        bins, written = again.pop("calibration"), outcome.metrics[part].pop("calibration")
        assert [row["samples"] for row in bins] == [row["samples"] for row in written]
        # A loaded model may run on other kernels, which add the same float32 numbers in another order.
        assert again == pytest.approx(outcome.metrics[part], rel=1e-5)


# -- what goes wrong goes wrong before anything is written -----------------------------------------------------------


def nothing_is_written(config: Config, words: str) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(DataError, match=words):
        run("refused", config)
    assert sorted(Path().rglob("*")) == before


def test_wrong_rows_are_found_wherever_the_split_puts_them() -> None:
    rows = shop_rows()
    rows[7][2] = "lila"
    write_csv(Path("rare.csv"), rows)
    rows = shop_rows()
    rows[7][0] = ""
    write_csv(Path("gap.csv"), rows)
    parts = set()
    for seed in range(8):
        data = {"target": "kauft", "validation": 0.2, "test": 0.2}
        config = validate(
            {"data": data | {"source": "rare.csv"}, "training": {"epochs": 1}, "seed": seed, "device": "cpu"}
        )
        part = next(i for i, table in enumerate(read_split(config)) if table and "lila" in table.categorical["farbe"])
        parts.add(part)
        if part:
            nothing_is_written(config, "'lila' is not among the training categories")
        nothing_is_written(
            config.model_copy(update={"data": config.data.model_copy(update={"source": "gap.csv"})}),
            "'größe': the value is missing",
        )
    assert parts == {0, 1, 2}


@pytest.mark.parametrize(
    ("task", "target", "words"),
    [
        ("binary", "regression", "is this a regression"),
        ("multiclass", "regression", "is this a regression"),
        ("binary", "multiclass", "two classes"),
        ("binary", "multilabel", "one target column"),
        ("multilabel", "regression", "0 or 1"),
        ("count", "regression", "negative"),
    ],
)
def test_a_target_of_another_task_is_recognized(task: str, target: str, words: str) -> None:
    X, y = arrays(target)
    np.savez("data.npz", X=X, y=y - 1000 if target == "regression" else y)
    nothing_is_written(quick(data={"source": "data.npz", "task": task}), words)


def test_one_class_only() -> None:
    X, y = arrays("binary")
    np.savez("data.npz", X=X, y=np.zeros_like(y))
    for task in ("binary", "multiclass"):
        nothing_is_written(quick(data={"source": "data.npz", "task": task}), "one class only")


def test_preparing_writes_nothing() -> None:
    prepare(quick(), progress=False)
    assert not list(Path().iterdir())


def test_an_undefined_score_is_null() -> None:
    X, y = arrays("regression", n=8)
    np.savez("few.npz", X=X, y=y)
    config = quick(data={"source": "few.npz", "task": "regression"}, training={"metrics": ["r2", "rmse"], "epochs": 2})
    run("r", config)
    metrics = strict_json(Path("r/metrics.json").read_text())
    assert (metrics["test"]["rows"], metrics["test"]["r2"]) == (1, None)
    assert metrics["test"]["rmse"] > 0
    for line in Path("r/history.jsonl").read_text().splitlines():
        assert strict_json(line)["validation"]["r2"] is None


def test_a_run_that_diverges_says_so_and_keeps_its_history() -> None:
    config = quick(
        optimizer={"name": "sgd", "learning_rate": 1e30}, data={"source": "regression", "task": "regression"}
    )
    with pytest.raises(NonFiniteError, match=r"epoch 1; lower optimizer\.learning_rate"):
        run("r", config)
    assert Path("r/history.jsonl").read_text() == ""
    assert not Path("r/model.safetensors").exists()


def test_a_run_that_diverges_later_keeps_its_best_weights_and_says_so() -> None:
    config = quick(
        optimizer={"name": "sgd", "learning_rate": 10.0},
        data={"source": "regression", "task": "regression"},
        training={"epochs": 200, "batch_size": 10_000},  # a step an epoch, each further away
    )
    with pytest.raises(NonFiniteError, match=r"; r holds the weights of epoch [1-9]\d*$") as caught:
        run("r", config)
    lines = [strict_json(line) for line in Path("r/history.jsonl").read_text().splitlines()]
    best = min((line["validation"]["cost"], line["epoch"]) for line in lines if line["validation"]["cost"] is not None)
    assert str(caught.value).endswith(f"epoch {best[1]}")
    assert not Path("r/metrics.json").exists()
    model = load("r")
    assert all(np.isfinite(x).all() for x in model.net.parameters().values())


# -- folders and files -----------------------------------------------------------------------------------------------


def test_the_folder_is_named_after_the_configuration_and_the_time() -> None:
    first = train(quick(), progress=False).run_dir
    assert re.fullmatch(r"quick-\d{8}-\d{6}", first.name)
    assert first.parent == Path("runs")
    again = {train(quick(), progress=False).run_dir for _ in range(3)}  # some of them within one second
    assert len({first, *again}) == 4


def test_runs_that_start_in_the_same_second_have_folders_of_their_own() -> None:
    """All prepared before the first begins, and begun at once."""
    experiments = [prepare(quick(), progress=False) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(build.run, experiments))
    assert len({outcome.run_dir for outcome in outcomes}) == 6
    for outcome in outcomes:
        assert (outcome.run_dir / "metrics.json").is_file()
        assert load_config(str(outcome.run_dir / "config.yaml")).name == "quick"


def test_a_folder_that_another_run_has_taken_meanwhile_is_refused() -> None:
    one, other = (prepare(quick(), progress=False) for _ in range(2))
    build.run(one, "same")
    kept = Path("same/model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="same exists already"):
        build.run(other, "same")
    assert Path("same/model.safetensors").read_bytes() == kept
    Path("nowhere").symlink_to("missing")
    with pytest.raises(ConfigError, match="nowhere exists already"):
        run("nowhere")


def test_what_exists_is_not_overwritten() -> None:
    Path("file").write_text("mine")
    Path("folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(ConfigError, match=f"{name} exists already; give --run-dir another folder"):
            check_run_dir(name)
    assert Path("file").read_text() == "mine"
    with pytest.raises(ConfigError, match="cannot make the run folder"):
        run("file/inside")


def test_parents_of_the_folder_are_made() -> None:
    assert run("a/b/c").run_dir == Path("a/b/c")
    assert Path("a/b/c/model.safetensors").is_file()


def test_a_file_that_is_no_whole_model() -> None:
    with pytest.raises(CheckpointError, match="no model file at nowhere"):
        load("nowhere")
    save_model("net.safetensors", DenseNet([3, 1], device="cpu"))
    with pytest.raises(CheckpointError, match="without its preprocessing"):
        load("net.safetensors")
    run("r")
    whole = Path("r/model.safetensors").read_bytes()
    for damaged in (
        b"",
        whole[:50],
        whole[:-1],
        whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:],
        b"\0" * 200,
        whole * 2,
    ):
        Path("r/model.safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"r.model\.safetensors"):
            load("r")


def test_the_device_of_a_configuration_can_be_changed() -> None:
    outcome = run("r", device="array_api_strict:device1")
    assert outcome.metrics["device"] == "array_api_strict:device1"
    assert load_config("r/config.yaml").device == "array_api_strict:device1"
