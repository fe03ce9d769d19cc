"""Bad input at the command line: exit code 2, one line that says what is wrong, and nothing written."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command import ROOT, Command, settings
from support.tables import COLUMNS, arrays, shop_rows, write_csv
from support.yaml_text import BOMB

from backprop_gpu.safe_yaml import MAX_BYTES

CONFIGURATIONS: dict[str, str | bytes] = {
    "bomb.yaml": BOMB,
    "duplicate.yaml": "seed: 1\nmodel:\n  hidden: [4]\n  hidden: [5]\n",
    "unknown.yaml": "model:\n  hiden: [4]\n",
    "list.yaml": "- seed\n",
    "deep.yaml": "a: " + "[" * 5000,
    "tab.yaml": "model:\n\thidden: [4]\n",
    "python.yaml": "seed: !!python/object/apply:os.system ['touch pwned']\n",
    "binary.yaml": bytes(range(256)),
    "latin.yaml": "name: größe\n".encode("latin-1"),
    "nul.yaml": 'data: {source: "a\\0.csv", target: y}\n',
    "surrogate.yaml": 'data: {source: "\\ud800.csv", target: y}\n',
    "date.yaml": "name: 2024-99-99\n",
    "huge.yaml": "# " + "x" * MAX_BYTES,
    "tail.yaml": "data: {source: shop.csv/inside.csv, target: y}\n",
}
TABLES = {
    "empty.csv": "",
    "header.csv": "a,b,y\n",
    "ragged.csv": "a,b,y\n1,2,0\n3,1\n",
    "quote.csv": 'a,b,y\n1,"2,0\n3,1,1\n',
    "twice.csv": "a,a,y\n1,2,0\n",
    "nameless.csv": "a,,y\n1,2,0\n",
    "numbers.csv": "1.5,2.5,0\n3.5,4.5,1\n",
    "gap.csv": "a,b,y\n1,2,0\n3,,1\n" + "5,6,0\n7,8,1\n" * 10,
    "infinite.csv": "a,b,y\n1,2,0\n3,inf,1\n" + "5,6,0\n7,8,1\n" * 10,
    "typo.csv": "a,b,y\n1,2,0\n3,4x,1\n" + "5,6,0\n7,8,1\n" * 10,
    "nolabel.csv": "a,b,y\n1,2,0\n3,4,\n" + "5,6,0\n7,8,1\n" * 10,
    "oneclass.csv": "a,b,y\n" + "5,6,0\n7,8,0\n" * 10,
    "short.csv": "a,b,y\n5,6,0\n7,8,1\n",
    "new.txt": "a,b,y\n5,6,0\n7,8,1\n",
}


def write_stock(folder: Path) -> None:
    """Every file that a case below needs."""
    for name, content in CONFIGURATIONS.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, text in TABLES.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "utf16.csv").write_text("a,b,y\n1,2,0\n", encoding="utf-16")
    (folder / "folder.csv").mkdir()
    (folder / "folder").mkdir()
    for name in ("junk.npz", "junk.npy", "junk.safetensors"):
        (folder / name).write_bytes(b"not what it is called" * 10)

    rows = shop_rows()
    write_csv(folder / "shop.csv", rows)
    write_csv(folder / "missing_column.csv", [row[:2] for row in rows], COLUMNS[:2])
    write_csv(folder / "unseen.csv", [["1", "2", "lila"]], COLUMNS[:3])
    write_csv(folder / "text.csv", [["1", "2", "rot"], ["abc", "2", "rot"]], COLUMNS[:3])
    write_csv(folder / "hole.csv", [["1", "2", "rot"], ["", "2", "rot"]], COLUMNS[:3])
    write_csv(folder / "stranger.csv", [["1", "2", "rot", "vielleicht"]])

    X, y = arrays("binary")
    np.savez(folder / "flat.npz", X=X[:, 0], y=y)
    np.savez(folder / "cube.npz", X=X[:, :, None], y=y)
    np.savez(folder / "lengths.npz", X=X, y=y[:-1])
    np.savez(folder / "no_y.npz", X=X)
    np.savez(folder / "no_rows.npz", X=X[:0], y=y[:0])
    np.savez(folder / "complex.npz", X=X.astype(complex), y=y)
    np.savez(folder / "objects.npz", X=np.array([{}, {}], dtype=object), y=y)
    np.savez(folder / "nan.npz", X=np.where(X[7, 3] == X, np.nan, X), y=y)
    np.savez(folder / "nan_y.npz", X=X, y=np.where(np.arange(120) == 7, np.nan, y))
    np.savez(folder / "one_class.npz", X=X, y=np.zeros_like(y))
    np.savez(folder / "three.npz", X=X, y=arrays("multiclass")[1])
    np.savez(folder / "fractions.npz", X=X, y=X[:, 0])
    np.savez(folder / "labels.npz", X=X, y=arrays("multilabel")[1] * 2)
    np.savez(folder / "counts.npz", X=X, y=-arrays("count")[1])
    np.savez(folder / "named.npz", X=X, y=y + 5, classes=np.array(["no", "yes"]))
    np.savez(folder / "narrow.npz", X=X[:, :2], y=y)
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y[:-1])

    command = Command(folder)
    more = settings(data__source="shop.csv", data__target="kauft", training__epochs=1, model__hidden="[2]")
    command.ok("train", "--quiet", "--run-dir", "run", *more)
    for name in ("truncated", "flipped", "emptied", "gone", "wrong_config", "no_config"):
        shutil.copytree(folder / "run", folder / name)
    whole = (folder / "run" / "model.safetensors").read_bytes()
    (folder / "truncated" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped" / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (folder / "emptied" / "model.safetensors").write_bytes(b"")
    (folder / "gone" / "model.safetensors").unlink()
    (folder / "no_config" / "config.yaml").unlink()
    (folder / "wrong_config" / "config.yaml").write_text("modle: {}\n")
    command.ok("train", "regression", "--quiet", "--run-dir", "values", *settings(training__epochs=1, data__test=0))


def data(source: str, *, task: str | None = None, target: object = None) -> list[str]:
    """``train`` on a source."""
    loss = [] if task is None else settings(data__task=task, loss="null")
    return ["train", *settings(data__source=source), *loss, *([] if target is None else settings(data__target=target))]


def csv(name: str) -> list[str]:
    return data(name, target="y")


# Command -> words that its one line must hold.
CASES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    # -- the configuration
    "missing configuration": (["train", "nowhere.yaml"], ("nowhere.yaml", "breast_cancer")),
    "misspelt carried name": (["train", "digts"], ("digts", "did you mean 'digits'?")),
    "folder as configuration": (["train", "folder"], ("folder", ".yaml")),
    "data as configuration": (["train", "shop.csv"], ("shop.csv: name the target column", "kauft", "data.target")),
    "key without its section": (["train", "--set", "epochs=3"], ("--set epochs=3", "did you mean 'training.epochs'?")),
    "key of a choice": (["train", "--set", "beta1=0.8"], ("did you mean 'optimizer.beta1'?",)),
    "key of another section": (["train", "--set", "data.l2=1"], ("did you mean 'regularization.l2'?",)),
    "key of nothing": (["train", "--set", "nonsense=3"], ("unknown key 'nonsense'; known here",)),
    "override of no plan": (["devices", "--set", "seed=1"], ("--set", "--plan CONFIG")),
    "path under a file": (["train", "shop.csv/a.yaml"], ("shop.csv/a.yaml",)),
    "alias bomb": (["train", "bomb.yaml"], ("bomb.yaml, line 2", "alias")),
    "duplicate keys": (["train", "duplicate.yaml"], ("duplicate.yaml, line 4", "'hidden'", "twice")),
    "unknown key": (["train", "unknown.yaml"], ("unknown.yaml", "'model.hiden'", "did you mean 'hidden'?")),
    "list as configuration": (["train", "list.yaml"], ("list.yaml", "mapping")),
    "depth": (["train", "deep.yaml"], ("deep.yaml, line 1", "20")),
    "tab": (["train", "tab.yaml"], ("tab.yaml, line 2",)),
    "python object": (["train", "python.yaml"], ("python.yaml, line 1", "!!python")),
    "binary configuration": (["train", "binary.yaml"], ("binary.yaml",)),
    "not UTF-8": (["train", "latin.yaml"], ("latin.yaml", "utf-8")),
    "NUL in a file name": (["train", "nul.yaml"], ("nul.yaml, line 1",)),
    "surrogate in a file name": (["train", "surrogate.yaml"], ("surrogate.yaml, line 1",)),
    "huge configuration": (["train", "huge.yaml"], ("huge.yaml", "larger")),
    "file under a file": (["train", "tail.yaml"], ("shop.csv/inside.csv",)),
    "--set without =": (["train", "--set", "seed"], ("--set", "section.key=value", "'seed'")),
    "--set with bad YAML": (["train", "--set", "seed=[1"], ("--set seed=[1",)),
    "--set of an unknown key": (["train", "--set", "optimizer.lerning_rate=1"], ("did you mean 'learning_rate'?",)),
    "--set of a word for a number": (["train", "--set", "training.epochs=ten"], ("training.epochs", "'ten'")),
    "negative rate": (["train", "--set", "optimizer.learning_rate=-0.1"], ("learning_rate", "positive", "-0.1")),
    "rate 0": (["train", "--set", "optimizer.learning_rate=0"], ("learning_rate", "positive")),
    "negative dropout": (["train", "--set", "model.dropout=-0.1"], ("model.dropout", "-0.1")),
    "negative l2": (["train", "--set", "regularization.l2=-1"], ("regularization.l2", "-1")),
    "width 0": (["train", "--set", "model.hidden=[8, 0]"], ("model.hidden.1", "got 0")),
    "width beyond any device": (["train", "--set", "model.hidden=[2000000]"], ("model.hidden.0", "2000000")),
    "epochs 0": (["train", "--set", "training.epochs=0"], ("training.epochs", "got 0")),
    "batch 0": (["train", "--set", "training.batch_size=0"], ("training.batch_size", "got 0")),
    "activations do not fit": (["train", "--set", "model.activation=[relu]"], ("model.activation", "2")),
    "loss does not fit": (["train", "--set", "loss=huber"], ("huber", "binary")),
    "metrics without validation": (
        ["train", *settings(data__validation=0, training__metrics="[f1]")],
        ("training.metrics", "data.validation"),
    ),
    "metric does not fit": (["train", "--set", "training.metrics=[rmse]"], ("rmse", "binary", "accuracy")),
    "stopping does not fit": (["train", "--set", "training.early_stopping.metric=r2"], ("r2", "binary", "accuracy")),
    "nothing left to train": (["train", *settings(data__validation=0.5, data__test=0.5)], ("validation", "test")),
    "name with a slash": (["train", "--set", "name=a/b"], ("name", "'a/b'")),
    "date as a name": (["config", "validate", "date.yaml", "--set", "seed=x"], ("seed", "'x'")),
    "validate finds it, too": (["config", "validate", "unknown.yaml"], ("'model.hiden'",)),
    "show finds it, too": (["config", "show", "--set", "seed=-1"], ("seed", "-1")),
    # -- the device
    "device of the future": (["train", "--device", "quantum"], ("'quantum'", "auto, cpu, cuda")),
    "gpu": (["train", "--device", "gpu"], ("'gpu'", "write 'cuda'")),
    "index out of range": (["train", "--device", "cuda:9999"], ("cupy:9999",)),
    "index that is none": (["train", "--device", "cuda:99999"], ("cuda:99999",)),
    "strict device that is none": (["train", "--device", "array_api_strict:device9"], ("device9", "device1")),
    "device of a prediction": (["predict", "run", "shop.csv", "--device", "nump"], ("'nump'", "'numpy'")),
    # -- where the run goes
    "run folder exists": (["train", "--run-dir", "folder"], ("folder exists already", "--run-dir")),
    "run folder is a file": (["train", "--run-dir", "shop.csv"], ("shop.csv exists already",)),
    "run folder is the run": (["train", "--run-dir", "run"], ("run exists already",)),
    "run folder under a file": (["train", "--run-dir", "shop.csv/run"], ("shop.csv/run",)),
    "run folder deep under a file": (["train", "--run-dir", "shop.csv/a/b/c"], ("shop.csv/a/b/c",)),
    "run folder with too long a name": (["train", "--run-dir", "x" * 300], ("x" * 300,)),
    # -- the data
    "missing file": (csv("nowhere.csv"), ("nowhere.csv",)),
    "missing npz": (data("nowhere.npz"), ("nowhere.npz", "no such file")),
    "unknown data set": (data("moonz"), ("'moonz'", "did you mean 'moons'?")),
    "folder as data": (csv("folder.csv"), ("folder.csv",)),
    "empty file": (csv("empty.csv"), ("empty.csv is empty",)),
    "header alone": (csv("header.csv"), ("header.csv", "no rows")),
    "ragged": (csv("ragged.csv"), ("ragged.csv, line 3", "2 cells", "3")),
    "open quote": (csv("quote.csv"), ("quote.csv, line 2",)),
    "no header": (data("numbers.csv", target=-1), ("numbers.csv", "header")),
    "no target named": (data("shop.csv"), ("shop.csv", "target")),
    "target that is not there": (data("shop.csv", target="kauf"), ("'kauf'", "did you mean 'kauft'?")),
    "target position beyond": (data("shop.csv", target=7), ("shop.csv", "7")),
    "column that is not there": ([*csv("short.csv"), "--set", "data.columns=[c]"], ("short.csv", "'c'")),
    "missing value": (csv("gap.csv"), ("gap.csv, line 3", "'b'", "missing: mean | median | indicator")),
    "infinite value": (csv("infinite.csv"), ("infinite.csv", "'b'", "inf")),
    "text among numbers": (csv("typo.csv"), ("typo.csv, line 3", "'b'", "'4x'", "na_values", "types")),
    "missing label": (csv("nolabel.csv"), ("nolabel.csv, line 3", "'y'")),
    "one class only": (csv("oneclass.csv"), ("oneclass.csv", "one class only")),
    "two rows": (csv("short.csv"), ("2 rows are too few",)),
    "options of a file": ([*csv("short.csv"), "--set", "data.options.n=3"], ("options", "short.csv")),
    "unknown option": ([*data("moons"), "--set", "data.options.noize=1"], ("'noize'", "did you mean 'noise'?")),
    "option out of range": ([*data("moons"), "--set", "data.options.n=0"], ("n must be",)),
    "junk npz": (data("junk.npz"), ("junk.npz",)),
    "junk npy": (data("junk.npy", target="y.npy"), ("junk.npy",)),
    "X of one dimension": (data("flat.npz"), ("flat.npz", "(120,)", "X.reshape(-1, 1)")),
    "X of three dimensions": (data("cube.npz"), ("cube.npz", "(120, 5, 1)")),
    "lengths that differ": (data("lengths.npz"), ("lengths.npz", "120", "119")),
    "npy lengths that differ": (data("X.npy", target="y.npy"), ("X.npy", "120", "119")),
    "npy without y": (data("X.npy"), ("X.npy", "y")),
    "no y": (data("no_y.npz"), ("no_y.npz", "'y'")),
    "no rows": (data("no_rows.npz"), ("no_rows.npz", "(0, 5)")),
    "complex numbers": (data("complex.npz"), ("complex.npz", "complex128")),
    "pickled objects": (data("objects.npz"), ("objects.npz", "never unpickled")),
    "NaN": (data("nan.npz"), ("nan.npz, row 7", "'x3'", "missing")),
    "NaN in y": (data("nan_y.npz"), ("nan_y.npz, row 7", "missing")),
    "one class in an npz": (data("one_class.npz"), ("one_class.npz", "one class only")),
    "three classes for binary": (data("three.npz", task="binary"), ("three.npz", "two classes", "3")),
    "fractions as classes": (data("fractions.npz", task="binary"), ("fractions.npz", "is this a regression?")),
    "labels out of range": (data("labels.npz", task="multilabel"), ("labels.npz, row", "0 or 1")),
    "negative counts": (data("counts.npz", task="count"), ("counts.npz, row", "negative")),
    "labels beyond the names": (data("named.npz"), ("named.npz", "from 0 to 1")),
    "text as values": (data("shop.csv", task="regression", target="kauft"), ("shop.csv, line 2", "not a number")),
    # -- evaluate and predict
    "no such run": (["evaluate", "nowhere"], ("nowhere",)),
    "folder without a model": (["predict", "folder", "shop.csv"], ("folder",)),
    "data as a model": (["predict", "shop.csv", "shop.csv"], ("shop.csv",)),
    "junk model": (["predict", "junk.safetensors", "shop.csv"], ("junk.safetensors",)),
    "model under a file": (["predict", "shop.csv/run", "shop.csv"], ("shop.csv/run",)),
    "truncated model": (["predict", "truncated", "shop.csv"], ("truncated",)),
    "flipped bit": (["predict", "flipped", "shop.csv"], ("flipped", "damaged")),
    "empty model": (["evaluate", "emptied"], ("emptied",)),
    "run without its model": (["evaluate", "gone"], ("gone", "model.safetensors")),
    "run without its configuration": (["evaluate", "no_config"], ("no_config", "evaluate RUN DATA")),
    "run with a wrong configuration": (["evaluate", "wrong_config"], ("'modle'", "did you mean 'model'?")),
    "run without test rows": (["evaluate", "values"], ("values", "evaluate RUN DATA")),
    "model file without data": (["evaluate", "run/model.safetensors"], ("evaluate RUN DATA",)),
    "evaluate without labels": (["evaluate", "run", "unseen.csv"], ("unseen.csv", "'kauft'")),
    "evaluate a label not trained on": (["evaluate", "run", "stranger.csv"], ("stranger.csv, line 2", "'vielleicht'")),
    "target that the file lacks": (["evaluate", "run", "shop.csv", "--target", "kauf"], ("'kauf'", "'kauft'")),
    "target that is a feature": (["evaluate", "run", "shop.csv", "--target", "farbe"], ("'farbe'", "the target")),
    "target without a file": (["evaluate", "run", "--target", "kauft"], ("--target", "evaluate RUN DATA")),
    "target of a built-in set": (["evaluate", "values", "regression", "--target", "y"], ("target", "regression")),
    "predict nothing": (["predict", "run", "nowhere.csv"], ("nowhere.csv",)),
    "predict an empty file": (["predict", "run", "empty.csv"], ("empty.csv",)),
    "missing column": (["predict", "run", "missing_column.csv"], ("missing_column.csv", "'farbe'")),
    "unseen category": (["predict", "run", "unseen.csv"], ("unseen.csv, line 2", "'farbe'", "'lila'")),
    "text in a numeric column": (["predict", "run", "text.csv"], ("text.csv, line 3", "'größe'", "'abc'")),
    "hole in a numeric column": (["predict", "run", "hole.csv"], ("hole.csv, line 3", "'größe'", "missing")),
    "too few columns": (["predict", "values", "narrow.npz"], ("narrow.npz", "2", "10")),
    "out under a file": (["predict", "run", "shop.csv", "--out", "text.csv/p.csv"], ("text.csv/p.csv",)),
    "out in no folder": (["predict", "run", "shop.csv", "--out", "no/p.csv"], ("no/p.csv",)),
    "out is the data": (["predict", "run", "shop.csv", "--out", "./shop.csv"], ("--out ./shop.csv would overwrite",)),
    "out is a folder": (["predict", "run", "shop.csv", "--out", "folder"], ("folder",)),
    "probabilities of values": (["predict", "values", "regression", "--proba"], ("--proba",)),
    "numbers of no classes": (["predict", "values", "regression", "--class-numbers"], ("--class-numbers", "values")),
    # -- gradcheck, and commands that are none
    "gradcheck of no rows": (["gradcheck", "--rows", "0"], ("--rows", "0")),
    "gradcheck of some rows": (["gradcheck", "--rows", "some"], ("--rows", "'some'")),
    "gradcheck of nothing": (["gradcheck", "nowhere.yaml"], ("nowhere.yaml",)),
    "no command": ([], ("COMMAND", "--help")),
    "misspelt command": (["tarin"], ("'tarin'", "train", "--help")),
    "misspelt option": (["train", "--sed", "1"], ("--sed", "--help")),
    "option without its value": (["train", "--run-dir"], ("--run-dir", "--help")),
    "one argument too many": (["train", "digits", "moons"], ("moons", "--help")),
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Command:
    folder = tmp_path_factory.mktemp("stock")
    write_stock(folder)
    return Command(folder)


def refused(command: Command, arguments: list[str], words: tuple[str, ...], **variables: str) -> None:
    before = command.files()
    done = command(*arguments, **variables)
    assert "Traceback" not in done.err, done.err
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("backprop-gpu: ")
    assert done.code == 2
    assert not [word for word in words if word not in done.err], done.err
    assert command.files() == before


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused(case: str, stock: Command) -> None:
    refused(stock, *CASES[case])


def test_cupy_asked_for_and_absent(stock: Command, tmp_path: Path) -> None:
    variables = {}
    if importlib.util.find_spec("cupy") is not None:  # hide it
        (tmp_path / "cupy.py").write_text("raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')\n")
        variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
    for device in ("cupy", "cuda", "cuda:1"):
        words = ("cannot be used", "CuPy", "pip install")
        refused(stock, ["train", "--device", device], words, **variables)
        refused(stock, ["train"], words, BACKPROP_GPU_DEVICE=device, **variables)
        refused(stock, ["predict", "run", "shop.csv", "--device", device], words, **variables)


def test_a_variable_that_names_no_device_is_blamed(stock: Command) -> None:
    words = ("BACKPROP_GPU_DEVICE", "'nump'", "did you mean 'numpy'?")
    for arguments in (["train"], ["gradcheck"], ["predict", "run", "shop.csv"]):
        refused(stock, arguments, words, BACKPROP_GPU_DEVICE="nump")


def test_a_run_that_diverges_is_one_line_and_keeps_its_history(tmp_path: Path) -> None:
    done = Command(tmp_path)("train", "--run-dir", "run", *settings(optimizer__learning_rate=1e30, training__epochs=3))
    assert done.code == 2
    assert done.err.count("\n") == 1, done.err
    assert "inf in Z2" in done.err
    assert "at step 2 (batch 2) in epoch 1" in done.err
    assert "optimizer.learning_rate" in done.err
    assert (tmp_path / "run" / "history.jsonl").is_file()
    assert not (tmp_path / "run" / "model.safetensors").exists()
