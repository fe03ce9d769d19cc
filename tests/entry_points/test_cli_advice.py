"""What an error advises works when it is followed to the letter; own data needs no more than its name and target."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.tables import COLUMNS, shop_rows, write_csv

from backprop_gpu.cli import main
from backprop_gpu.config import validate
from backprop_gpu.config_reading import load_config

QUICK = ["--quiet", "--set", "training.epochs=1", "--set", "model.hidden=[2]"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPROP_GPU_DEVICE", raising=False)


class Line:
    """Runs the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = main(list(arguments))
        return code, *self.capsys.readouterr()

    def ok(self, *arguments: str) -> str:
        code, out, err = self(*arguments)
        assert code == 0, err
        return out

    def advised(self, *arguments: str, words: str) -> list[str]:
        """The command with what its error says to add."""
        code, _, err = self(*arguments)
        assert code == 2, err
        error = err.splitlines()[-1]
        assert words in error
        assert "; here: " in error, error
        return [*arguments, *shlex.split(error.rpartition("; here: ")[2])]


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(capsys)


def test_columns_that_differ_lead_to_a_policy(line: Line) -> None:
    write_csv(Path("shop.csv"), shop_rows())
    line.ok("train", "shop.csv", "--run-dir", "run", "--set", "data.target=kauft", *QUICK)
    write_csv(Path("narrow.csv"), [[row[0], row[2]] for row in shop_rows()], ["größe", "farbe"])
    command = line.advised("predict", "run", "narrow.csv", words="lacks the column 'höhe'")
    assert len(line.ok(*command).splitlines()) == 61
    write_csv(Path("wide.csv"), [[*row, "1"] for row in shop_rows()], [*COLUMNS, "more"])
    assert line.ok("predict", "run", "wide.csv") == line.ok("predict", "run", "shop.csv")
    command = line.advised("predict", "run", "wide.csv", "--extra-columns", "error", words="did not have: more")
    assert line.ok(*command) == line.ok("predict", "run", "shop.csv")
    kept = line.ok("predict", "run", "wide.csv", "--extra-columns", "error", "--keep", "more")
    assert kept.startswith("more,kauft\n1,")
    write_csv(Path("new.csv"), [["1", "1", "lila"]], COLUMNS[:3])
    assert len(line.ok("predict", "run", "new.csv", "--unknown", "missing").splitlines()) == 2


def test_a_threshold_decides_and_probabilities_have_six_digits(line: Line) -> None:
    write_csv(Path("shop.csv"), shop_rows())
    line.ok("train", "shop.csv", "--run-dir", "run", "--set", "data.target=kauft", *QUICK)
    rows = list(csv.DictReader(io.StringIO(line.ok("predict", "run", "shop.csv", "--proba"))))
    assert all(len(row["P(ja)"].lstrip("0.")) <= 6 for row in rows)
    p = np.array([float(row["P(nein)"]) for row in rows])
    at = float(np.quantile(p, 0.8)) + 1e-5
    found = line.ok("predict", "run", "shop.csv", "--threshold", str(at)).split()[1:]
    assert found == ["nein" if value > at else "ja" for value in p]
    truth = np.array([row[3] for row in shop_rows()])
    scores = json.loads(line.ok("evaluate", "run", "shop.csv", "--threshold", str(at), "--json"))
    assert scores["accuracy"] == pytest.approx(np.mean(truth == found))
    assert np.sum(scores["confusion_matrix"]["rows_true"], axis=0).tolist() == [found.count("ja"), found.count("nein")]
    assert "below 1, got 1" in line("predict", "run", "shop.csv", "--threshold", "1")[2]
    line.ok("train", "shop.csv", "--run-dir", "values", "--set", "data.target=höhe", *QUICK)
    assert "the task is regression: leave it out" in line("predict", "values", "shop.csv", "--threshold", "0.3")[2]


# -- advice ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_file_alone_leads_to_a_run(mark: str, line: Line) -> None:
    """Nothing is known but the file: each error names the next thing to add."""
    write_csv(Path("shop.csv"), shop_rows(), delimiter=mark)
    command = ["train", "shop.csv", "--run-dir", "run", *QUICK]
    command = line.advised(*command, words="its columns: größe, höhe, farbe, kauft")
    line.ok(*command)
    assert len(line.ok("predict", "run", "shop.csv").splitlines()) == 61


def test_another_mark_between_the_cells_of_new_rows(line: Line) -> None:
    write_csv(Path("shop.csv"), shop_rows())
    line.ok("train", "shop.csv", "--run-dir", "run", "--set", "data.target=kauft", *QUICK)
    plain = line.ok("predict", "run", "shop.csv")
    for mark in (";", "\t", "|"):
        write_csv(Path("other.csv"), shop_rows(), delimiter=mark)
        assert line.ok("predict", "run", "other.csv") == plain
        assert json.loads(line.ok("evaluate", "run", "other.csv", "--json", "--delimiter", mark))["rows"] == 60


def test_a_category_that_is_new(line: Line) -> None:
    write_csv(Path("shop.csv"), shop_rows())
    line.ok("train", "shop.csv", "--run-dir", "run", "--set", "data.target=kauft", *QUICK)
    write_csv(Path("new.csv"), [["1", "2", "lila"], ["1", "2", "rot"]], COLUMNS[:3])
    command = line.advised("predict", "run", "new.csv", words="'lila' is not among the training categories")
    assert len(line.ok(*command).splitlines()) == 3
    write_csv(Path("labelled.csv"), [["1", "2", "lila", "ja"], ["1", "2", "rot", "nein"]])
    assert json.loads(line.ok(*line.advised("evaluate", "run", "labelled.csv", "--json", words="'lila'")))["rows"] == 2


def test_a_category_of_few_rows_and_a_gap(line: Line) -> None:
    rows = shop_rows()
    for i in range(4, 60, 5):
        rows[i][2] = f"farbe {i}"
    write_csv(Path("shop.csv"), rows)
    command = ["train", "shop.csv", "--run-dir", "run", "--set", "data.target=kauft", *QUICK]
    line.ok(*line.advised(*command, words="set unknown: ignore"))
    rows[7][0] = ""
    write_csv(Path("gaps.csv"), rows)
    command = ["train", "gaps.csv", "--run-dir", "gaps", "--set", "data.target=kauft", *QUICK]
    line.ok(*line.advised(*line.advised(*command, words="the value is missing"), words="set unknown: ignore"))


def test_columns_of_names_are_left_out_one_after_the_other(line: Line) -> None:
    rows = [[f"A{i}", *row[:3], f"B{i}", row[3]] for i, row in enumerate(shop_rows(160))]
    write_csv(Path("t.csv"), rows, ["who", *COLUMNS[:3], "what", "y"])
    command = ["train", "t.csv", "--run-dir", "run", "--target", "y", *QUICK]
    command = line.advised(*command, words="each of which would be an input")
    line.ok(*line.advised(*command, words="each of which would be an input"))
    assert set(load_config("run/config.yaml").data.ignore) == {"who", "what"}


def test_a_typing_error_in_a_short_column(line: Line) -> None:
    rows = [[str(i % 7), ["red", "blue"][i % 2], ["yes", "no"][i % 2]] for i in range(60)]
    rows[30][0] = "3x"
    write_csv(Path("t.csv"), rows, ["a", "colour", "y"])
    command = ["train", "t.csv", "--run-dir", "run", "--set", "data.target=y", "--set", "data.unknown=ignore", *QUICK]
    line.ok(*line.advised(*command, words="'3x' is not a number, but 59 other cells"))
    assert load_config("run/config.yaml").data.types == {"a": "category"}


@pytest.mark.parametrize(
    ("answers", "task"),
    [
        (["1", "2", "3"], "multiclass"),
        ([f"{1.5 * i}" for i in range(40)], "regression"),
        (["a", "b", "c"], "multiclass"),
    ],
)
def test_a_task_that_does_not_fit(answers: list[str], task: str, line: Line) -> None:
    write_csv(Path("t.csv"), [[f"{0.3 * i}", answers[i % len(answers)]] for i in range(120)], ["a", "y"])
    command = ["train", "t.csv", "--run-dir", "run", "--set", "data.target=y", "--set", "data.task=binary", *QUICK]
    line.ok(*line.advised(*command, words=f"set data.task: {task}"))
    assert load_config("run/config.yaml").data.task == task


# -- keeping columns -------------------------------------------------------------------------------------------------


def test_columns_are_kept_beside_the_predictions(line: Line) -> None:
    rows = [[f"00{i}", *row] for i, row in enumerate(shop_rows())]
    header = ["id", *COLUMNS]
    write_csv(Path("shop.csv"), rows, header)
    line.ok("train", "shop.csv", "--run-dir", "run", "--set", "data.target=kauft", "--set", "data.ignore=[id]", *QUICK)
    kept = list(csv.reader(io.StringIO(line.ok("predict", "run", "shop.csv", "--keep", "id", "--keep", "kauft"))))
    assert kept[0] == ["id", "kauft", "predicted kauft"]
    assert [row[:2] for row in kept[1:]] == [[row[0], row[4]] for row in rows]  # as they are written
    plain = list(csv.reader(io.StringIO(line.ok("predict", "run", "shop.csv"))))
    assert [row[2] for row in kept[1:]] == [row[0] for row in plain[1:]]
    code, _, err = line("predict", "run", "shop.csv", "--keep", "idd")
    assert (code, "no column 'idd' (did you mean 'id'?)" in err) == (2, True)


# -- data that has changed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["sorted", "longer", "shorter", "edited", "another seed"])
def test_changed_data_has_no_test_rows(change: str, line: Line) -> None:
    """A new split of other rows would call rows that were trained on test rows."""
    rows = shop_rows()
    write_csv(Path("shop.csv"), rows)
    line.ok("train", "shop.csv", "--run-dir", "run", "--set", "data.target=kauft", *QUICK)
    before = line.ok("evaluate", "run", "--json")
    with Path("shop.csv").open("a") as file:
        file.write("\n\n")  # the same rows
    assert line.ok("evaluate", "run", "--json") == before
    changed = {
        "sorted": sorted(rows),
        "longer": [*rows, *shop_rows(7, seed=1)],
        "shorter": rows[:-9],
        "edited": [[row[0], row[1] + "1", *row[2:]] for row in rows],
    }
    if change == "another seed":
        path = Path("run/config.yaml")
        path.write_text(path.read_text(encoding="utf-8").replace("seed: 0", "seed: 1"), encoding="utf-8")
    else:
        write_csv(Path("shop.csv"), changed[change])
    code, out, err = line("evaluate", "run", "--json")
    assert (code, out) == (2, "")
    assert "has changed since the run" in err
    advice = err.strip().rpartition("backprop-gpu ")[2]
    scored = json.loads(line.ok(*shlex.split(advice), "--json"))
    assert scored["rows"] == len(changed.get(change, rows))


def test_changed_arrays_have_no_test_rows(line: Line) -> None:
    X = np.random.default_rng(0).normal(size=(80, 3))
    np.savez("d.npz", X=X, y=(X[:, 0] > 0).astype(int))
    line.ok("train", "d.npz", "--run-dir", "run", *QUICK)
    line.ok("evaluate", "run")
    np.savez("d.npz", X=X[::-1], y=(X[::-1, 0] > 0).astype(int))
    code, _, err = line("evaluate", "run")
    assert (code, "d.npz" in err, "has changed since the run" in err) == (2, True, True)


def test_changed_arrays_of_two_files_are_scored_with_both(line: Line) -> None:
    X = np.random.default_rng(0).normal(size=(80, 3))
    for change in (1, -1):
        np.save("my X.npy", X[::change])
        np.save("my y.npy", (X[::change, 0] > 0).astype(int))
        if change == 1:
            files = ["--set", "data.source=my X.npy", "--set", "data.target=my y.npy"]
            line.ok("train", *files, "--run-dir", "run", *QUICK)
    code, _, err = line("evaluate", "run")
    assert code == 2
    scored = line.ok(*shlex.split(err.strip().rpartition("backprop-gpu ")[2]), "--json")
    assert json.loads(scored)["rows"] == 80


def test_another_split_of_a_built_in_set_is_noticed(line: Line) -> None:
    line.ok("train", "moons", "--run-dir", "run", *QUICK)
    line.ok("evaluate", "run")
    path = Path("run/config.yaml")
    path.write_text(path.read_text(encoding="utf-8").replace("n: 1000", "n: 900"), encoding="utf-8")
    assert line("evaluate", "run")[0] == 2


# -- own data --------------------------------------------------------------------------------------------------------


def test_a_task_is_found_and_said(line: Line) -> None:
    rng = np.random.default_rng(0)
    answers = {
        "regression": [f"{100000 + 900 * v:.0f}" for v in rng.normal(size=200)],
        "multiclass": [str(k) for k in rng.integers(0, 4, 200)],
        "binary": [["ja", "nein"][k] for k in rng.integers(0, 2, 200)],
    }
    for task, column in answers.items():
        write_csv(
            Path("t.csv"), [[f"{v:.3f}", y] for v, y in zip(rng.normal(size=200), column, strict=True)], ["a", "y"]
        )
        loud = [word for word in QUICK if word != "--quiet"]
        out = line.ok("train", "t.csv", "--run-dir", task, "--set", "data.target=y", *loud)
        assert f"task: {task}, since 'y' holds" in out
        written = yaml.safe_load(Path(task, "config.yaml").read_text(encoding="utf-8"))
        assert (written["data"]["task"], written["data"]["standardize_target"]) == (task, task == "regression")
        assert written["loss"]["name"] == validate({"data": {"task": task}}).loss.name
        assert line.ok("evaluate", task)


def test_own_data_has_the_same_defaults_however_they_are_named() -> None:
    write_csv(Path("shop.csv"), shop_rows())
    Path("shop.yaml").write_text("data: {source: shop.csv, target: kauft}\n", encoding="utf-8")
    from_yaml = load_config("shop.yaml")
    assert load_config(None, ["data.source=shop.csv", "data.target=kauft"]) == from_yaml
    assert load_config("shop.csv", ["data.target=kauft"]) == from_yaml
    plain = validate({}).model_dump()
    for section in ("model", "regularization", "optimizer", "schedule", "training"):
        assert from_yaml.model_dump()[section] == plain[section]
    named = load_config("breast_cancer", ["data.source=shop.csv"])  # who names a configuration means its settings
    assert named.regularization.l2 == load_config("breast_cancer").regularization.l2 > 0.0
