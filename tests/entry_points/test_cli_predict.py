"""``evaluate`` and ``predict``, run as a user runs them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from support.command import SHORT, Command, metrics, settings
from support.tables import COLUMNS, arrays, read_csv, shop_rows, trained_shop, write_csv


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Shared; tests only read it."""
    return trained_shop(tmp_path_factory.mktemp("shop"))


def read_csv_text(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_evaluate_finds_the_same_test_rows_and_the_same_scores(shop: Command) -> None:
    written = metrics(shop.folder / "run")
    again = json.loads(shop.ok("evaluate", "run", "--json"))
    assert again.pop("confusion_matrix") == written["test"].pop("confusion_matrix")
    assert len(again.pop("calibration")) == len(written["test"].pop("calibration"))
    assert again == pytest.approx(written["test"], rel=1e-5)  # other kernels may add in another order
    out = shop.ok("evaluate", "run")
    assert f"{written['test']['log_loss']:.4f}" in out
    assert "test" in out
    assert "nein" in out


def test_a_run_finds_its_data_from_another_folder(shop: Command, tmp_path: Path) -> None:
    run, here = str(shop.folder / "run"), Command(tmp_path)
    assert here.ok("evaluate", run, "--json") == shop.ok("evaluate", "run", "--json")
    assert json.loads(here.ok("parity", "run", run, "--rows", "8", "--json"))["ok"]


def test_the_two_files_of_a_run_are_found_from_another_folder(tmp_path: Path) -> None:
    for name, array in zip(("X", "y"), arrays("binary"), strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    more = settings(data__source="X.npy", data__target="y.npy")
    Command(tmp_path).ok("train", "--quiet", "--run-dir", "run", *SHORT, *more)
    (tmp_path / "elsewhere").mkdir()
    assert "accuracy" in Command(tmp_path / "elsewhere").ok("evaluate", "../run")


def test_the_class_that_f1_is_about_is_named(shop: Command) -> None:
    assert json.loads(shop.ok("evaluate", "run", "--json"))["confusion_matrix"]["positive_class"] == "nein"
    assert "f1 of nein" in shop.ok("evaluate", "run")


def test_evaluate_a_target_with_another_name(shop: Command, tmp_path: Path) -> None:
    rows = [[*row, row[3]] for row in shop_rows()]
    for row in rows:
        row[3] = "nein"
    write_csv(tmp_path / "renamed.csv", rows, [*COLUMNS, "bought"])
    found = json.loads(shop.ok("evaluate", "run", str(tmp_path / "renamed.csv"), "--target", "bought", "--json"))
    assert found == json.loads(shop.ok("evaluate", "run", "shop.csv", "--json"))
    assert found != json.loads(shop.ok("evaluate", "run", str(tmp_path / "renamed.csv"), "--json"))


def test_evaluate_a_file(shop: Command) -> None:
    for model in ("run", "run/model.safetensors"):
        found = json.loads(shop.ok("evaluate", model, "shop.csv", "--json"))
        assert (found["rows"], found["confusion_matrix"]["classes"]) == (60, ["ja", "nein"])
        hits = sum(row[j] for j, row in enumerate(found["confusion_matrix"]["rows_true"]))
        assert found["accuracy"] == pytest.approx(hits / 60)


def test_predict_prints_a_csv_that_agrees_with_evaluate(shop: Command) -> None:
    rows = read_csv_text(shop.ok("predict", "run", "shop.csv"))
    assert rows[0] == ["kauft"]
    right = sum(predicted == truth[3] for (predicted,), truth in zip(rows[1:], shop_rows(), strict=True))
    assert right / 60 == pytest.approx(json.loads(shop.ok("evaluate", "run", "shop.csv", "--json"))["accuracy"])


def test_predict_with_probabilities(shop: Command) -> None:
    rows = list(csv.DictReader(io.StringIO(shop.ok("predict", "run", "shop.csv", "--proba"))))
    assert len(rows) == 60
    for row in rows:
        p = {"ja": float(row["P(ja)"]), "nein": float(row["P(nein)"])}
        assert sum(p.values()) == pytest.approx(1.0, abs=1e-6)
        assert row["kauft"] == max(p, key=lambda name: p[name])


def test_predict_prints_the_names_of_classes_or_their_numbers(tmp_path: Path) -> None:
    command = Command(tmp_path)
    command.ok("train", "--quiet", "--run-dir", "run", *SHORT)
    named = read_csv_text(command.ok("predict", "run", "breast_cancer", "--proba"))
    numbered = read_csv_text(command.ok("predict", "run", "breast_cancer", "--class-numbers"))
    assert named[0] == ["y", "P(malignant)", "P(benign)"]
    assert {row[0] for row in named[1:]} == {"malignant", "benign"}
    names = {"0": "malignant", "1": "benign"}
    assert [row[0] for row in named[1:]] == [names[row[0]] for row in numbered[1:]]


def test_texts_have_numbers_too(shop: Command) -> None:
    names = [row[0] for row in read_csv_text(shop.ok("predict", "run", "shop.csv"))]
    numbers = [row[0] for row in read_csv_text(shop.ok("predict", "run", "shop.csv", "--class-numbers"))]
    assert numbers == ["kauft", *({"ja": "0", "nein": "1"}[name] for name in names[1:])]


def test_predict_to_a_file(shop: Command, tmp_path: Path) -> None:
    out = shop.ok("predict", "run", "shop.csv", "--proba")
    assert shop.ok("predict", "run", "shop.csv", "--proba", "--out", str(tmp_path / "p.csv")) == ""
    assert (tmp_path / "p.csv").read_bytes() == out.encode()


def test_predict_rows_without_a_label_in_another_order(shop: Command, tmp_path: Path) -> None:
    rows = [[row[2], row[1], row[0]] for row in shop_rows()]
    write_csv(tmp_path / "bare.csv", rows, COLUMNS[2::-1])
    assert shop.ok("predict", "run", str(tmp_path / "bare.csv")) == shop.ok("predict", "run", "shop.csv")


def test_predict_on_another_device(shop: Command) -> None:
    here = shop.ok("predict", "run", "shop.csv")
    assert shop.ok("predict", "run", "shop.csv", "--device", "array_api_strict:device1") == here
    assert shop.ok("predict", "run", "shop.csv", BACKPROP_GPU_DEVICE="array_api_strict") == here


def test_classes_that_no_terminal_can_mistake(tmp_path: Path) -> None:
    """Names with brackets are no markup; letters that the terminal lacks are no error."""
    names = ["[bold]x", "a,b", 'naïve "q"', "日本"]
    rows = [[row[0], row[1], names[i % 4]] for i, row in enumerate(shop_rows(120))]
    write_csv(tmp_path / "odd.csv", rows, ["a", "[red]b", "класс"])
    text = "data: {source: odd.csv, target: класс, task: multiclass}\ntraining: {epochs: 1}\n"
    (tmp_path / "odd.yaml").write_text(text, encoding="utf-8")
    command = Command(tmp_path)
    out = command.ok("train", "odd.yaml", "--run-dir", "run")
    assert all(name in out for name in names)
    printed = command.ok("predict", "run", "odd.csv", "--proba")
    assert read_csv_text(printed)[0] == ["класс", *(f"P({name})" for name in names)]
    for encoding in ("ascii", "cp1252"):
        assert "a,b" in command.ok("evaluate", "run", PYTHONIOENCODING=encoding)
        assert command.ok("predict", "run", "odd.csv", "--proba", PYTHONIOENCODING=encoding) == printed


def test_a_delimiter_is_remembered(tmp_path: Path) -> None:
    write_csv(tmp_path / "shop.csv", shop_rows(), delimiter=";")
    command = Command(tmp_path)
    more = settings(data__source="shop.csv", data__target="kauft", data__delimiter="';'")
    command.ok("train", "--quiet", "--run-dir", "run", *SHORT, *more)
    assert len(read_csv_text(command.ok("predict", "run", "shop.csv"))) == 61
    assert json.loads(command.ok("evaluate", "run", "shop.csv", "--json"))["rows"] == 60
    assert read_csv(tmp_path / "shop.csv")[0] == [";".join(COLUMNS)]
