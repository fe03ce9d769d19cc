"""Bad input at the command line: what is wrong, the command, what to change, and the change itself, which works.

``docs/errors.md`` shows these rows with their messages; ``python tests/support/bad_input.py`` (of .venv) writes it, and
``tests/entry_points/test_errors_page.py`` runs every row.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "errors.md"
QUICK = "--quiet --set training.epochs=1 --set model.hidden=[2]"


class Row(NamedTuple):
    """A line of the table. ``fix``: another command, or (file, new content) after which the same command works."""

    what: str
    command: str
    change: str
    fix: str | tuple[str, str | bytes]


class Part(NamedTuple):
    """A heading of the page and its rows."""

    title: str
    rows: list[Row]


def _rows(n: int = 60) -> str:
    return "".join(f"{i % 7 - 3},{i % 5 / 4},{'rgb'[i % 3]},{'yes' if i % 7 + i % 3 > 4 else 'no'}\n" for i in range(n))


HEADER = "size,height,colour,buys\n"
SHOP = HEADER + _rows()
GOOD = "a,b,y\n" + "1,2,0\n3,4,1\n5,6,0\n7,8,1\n" * 10
CONFIGURATION = "data: {source: moons}\n"


def _npz(**arrays: np.ndarray) -> bytes:
    output = io.BytesIO()
    np.savez(output, **arrays)  # type: ignore[arg-type]
    return output.getvalue()


def _npy(x: np.ndarray) -> bytes:
    output = io.BytesIO()
    np.save(output, x)
    return output.getvalue()


def _deflated(x: np.ndarray) -> bytes:
    output = io.BytesIO()
    np.savez_compressed(output, X=x, y=np.arange(len(x)) % 2)
    return output.getvalue()


X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(np.int64)
WHOLE = _npz(X=X, y=Y)


def _check(name: str, *more: str) -> str:
    return " ".join(["config validate", name, *more])


def _train(name: str, *more: str) -> str:
    return " ".join(["train", name, QUICK, *more])


def _csv(name: str, *more: str) -> str:
    return _train(name, "--set data.target=y", *more)


PARTS = [
    Part(
        "The configuration",
        [
            Row("no such file", _check("nowhere.yaml"), "name one that is there", _check("moons")),
            Row("a misspelt name", _check("digts"), "write it as suggested", _check("digits")),
            Row("a folder", _check("folder"), "give a file in it", _check("folder/good.yaml")),
            Row(
                "an empty file",
                _check("empty.yaml"),
                "name the data",
                ("empty.yaml", "data: {source: breast_cancer}\n"),
            ),
            Row("a key given twice", _check("twice.yaml"), "keep one", ("twice.yaml", CONFIGURATION + "seed: 1\n")),
            Row(
                "an unknown key",
                _check("hiden.yaml"),
                "write it as suggested",
                ("hiden.yaml", "model: {hidden: [4]}\n"),
            ),
            Row("a list", _check("list.yaml"), "write a mapping", ("list.yaml", "training: {epochs: 10}\n")),
            Row("too deep", _check("deep.yaml"), "nest less", ("deep.yaml", "model: {hidden: [4]}\n")),
            Row("too many values", _check("long.yaml"), "write less", ("long.yaml", "model: {hidden: [4]}\n")),
            Row("too large", _check("huge.yaml"), "give the right file", _check("moons")),
            Row("a tab", _check("tab.yaml"), "indent by blanks", ("tab.yaml", "model:\n  hidden: [4]\n")),
            Row("a YAML tag", _check("tag.yaml"), "leave the tag out", ("tag.yaml", "seed: 3\n")),
            Row("a YAML alias", _check("alias.yaml"), "write the value out", ("alias.yaml", "seed: 3\n")),
            Row("a number of 5,000 digits", _check("digits.yaml"), "write a shorter one", ("digits.yaml", "seed: 9\n")),
            Row("Latin-1", _check("latin.yaml"), "save it as UTF-8", ("latin.yaml", "# größe\nseed: 3\n")),
            Row("a NUL in a text", _check("nul.yaml"), "take it out", ("nul.yaml", 'name: "ab"\n')),
            Row("an unclosed bracket", _check("open.yaml"), "close it", ("open.yaml", "model: {hidden: [4]}\n")),
            Row("--set without =", _check("moons --set seed"), "write section.key=value", _check("moons --set seed=3")),
            Row("--set of no YAML", _check("moons --set 'seed=[1'"), "write a value", _check("moons --set seed=1")),
            Row(
                "--set without the section",
                _check("moons --set epochs=3"),
                "write it as suggested",
                _check("moons --set training.epochs=3"),
            ),
            Row(
                "a word for a number",
                _check("moons --set training.epochs=ten"),
                "write a number",
                _check("moons --set training.epochs=10"),
            ),
            Row(
                "a negative rate",
                _check("moons --set optimizer.learning_rate=-0.1"),
                "write a positive one",
                _check("moons --set optimizer.learning_rate=0.1"),
            ),
            Row(
                "a loss of another task",
                _check("breast_cancer --set loss=huber"),
                "name one of those listed",
                _check("breast_cancer --set loss=binary_cross_entropy"),
            ),
            Row(
                "a metric of another task",
                _check("breast_cancer --set 'training.metrics=[rmse]'"),
                "name one of those listed",
                _check("breast_cancer --set 'training.metrics=[accuracy]'"),
            ),
            Row(
                "too many activations",
                _check("moons --set 'model.hidden=[4]' --set 'model.activation=[relu,tanh]'"),
                "one a hidden layer",
                _check("moons --set 'model.hidden=[4,4]' --set 'model.activation=[relu,tanh]'"),
            ),
            Row(
                "nothing left to train on",
                _check("moons --set data.validation=0.5 --set data.test=0.5"),
                "hold back less",
                _check("moons --set data.validation=0.2 --set data.test=0.2"),
            ),
            Row("a name with a slash", _check("moons --set name=a/b"), "write another", _check("moons --set name=a-b")),
            Row("a device called gpu", _check("moons --device gpu"), "name one", _check("moons --device auto")),
            Row("no command", "", "name one", "config list"),
            Row("a misspelt command", "tarin moons", "write train", _train("moons")),
        ],
    ),
    Part(
        "Tables",
        [
            Row("no such file", _csv("nowhere.csv"), "check the path", _csv("good.csv")),
            Row(
                "no such data set", _train("--set data.source=moonz"), "as suggested", _train("--set data.source=moons")
            ),
            Row("another ending", _train("--set data.source=table.dat"), "give one of these", _csv("good.csv")),
            Row("a table of another kind", _train("table.xls"), "make it a CSV", _csv("good.csv")),
            Row("a named pipe", _csv("pipe.csv"), "write the rows to a file", _csv("good.csv")),
            Row("no rows and no header", _csv("nothing.csv"), "add both", ("nothing.csv", GOOD)),
            Row("a header alone", _csv("header.csv"), "add rows", ("header.csv", GOOD)),
            Row("no header", _train("numbers.csv --set data.target=-1"), "add one", ("numbers.csv", GOOD)),
            Row("a short row", _csv("ragged.csv"), "complete it", ("ragged.csv", GOOD)),
            Row("an open quote", _csv("quote.csv"), "close it", ("quote.csv", GOOD)),
            Row(
                "another encoding than is set",
                _csv("utf16.csv --set data.encoding=utf-8"),
                "set none, or the right one",
                _csv("utf16.csv"),
            ),
            Row(
                "a number that may be two",
                _csv("comma.csv"),
                "say which mark is the decimal one",
                _csv("comma.csv --set 'data.decimal=\",\"'"),
            ),
            Row(
                "a gzip file cut short",
                _csv("half.csv.gz"),
                "copy it again",
                ("half.csv.gz", gzip.compress(GOOD.encode())),
            ),
            Row(
                "a delimiter of two letters",
                _csv("good.csv --delimiter ,,"),
                "give one",
                _csv("good.csv --delimiter ,"),
            ),
            Row(
                "an encoding that there is not",
                _csv("good.csv --encoding utf-88"),
                "as suggested",
                _csv("good.csv --encoding utf-8"),
            ),
            Row(
                "one mark for two things",
                _csv("comma.csv --decimal , --thousands ,"),
                "leave one out",
                _csv("comma.csv --decimal ,"),
            ),
            Row(
                "a type that there is not",
                _csv("good.csv --set 'data.types={a: numbr}'"),
                "as suggested",
                _csv("good.csv --set 'data.types={a: number}'"),
            ),
            Row(
                "a configuration that is there already",
                "config init good.csv --target y --out ours.yaml",
                "give another file",
                "config init good.csv --target y --out new.yaml",
            ),
            Row("a day that may be a month", _csv("days.csv"), "say which", _csv("days.csv --set data.day_first=true")),
            Row(
                "dates in two forms",
                _csv("forms.csv"),
                "write them alike, or as suggested",
                _csv("forms.csv --set 'data.types={b: category}'"),
            ),
            Row("150 categories", _csv("names.csv"), "leave it out", _csv("names.csv --set 'data.ignore=[b]'")),
            Row("no target named", _train("good.csv"), "name it", _csv("good.csv")),
            Row("a target that is not there", _train("good.csv --set data.target=z"), "name one", _csv("good.csv")),
            Row("a missing value", _csv("gap.csv"), "say how to fill it", _csv("gap.csv --set data.missing=indicator")),
            Row("an infinite value", _csv("infinite.csv"), "correct it", ("infinite.csv", GOOD)),
            Row("a typing error in a number", _csv("typo.csv"), "correct it", ("typo.csv", GOOD)),
            Row("a missing label", _csv("unlabelled.csv"), "fill it in or delete the row", ("unlabelled.csv", GOOD)),
            Row("one class only", _csv("one.csv"), "add rows of another", ("one.csv", GOOD)),
            Row(
                "a class weight for no class",
                _train("shop.csv --set data.target=buys --set 'training.class_weight={yess: 3}'"),
                "write it as suggested",
                _train("shop.csv --set data.target=buys --set 'training.class_weight={yes: 3}'"),
            ),
            Row(
                "a weight that is no number",
                _train("shop.csv --set data.target=buys --set data.weight_column=colour"),
                "name a column of weights",
                _train("shop.csv --set data.target=buys"),
            ),
            Row(
                "a weight below 0",
                _csv("below.csv --set data.weight_column=b"),
                "correct it",
                ("below.csv", GOOD.replace(",4,", ",0.5,")),
            ),
            Row(
                "a time that is none",
                _train("shop.csv --set data.target=buys --set data.time_column=colour"),
                "name a column of times",
                _train("shop.csv --set data.target=buys --set data.time_column=height"),
            ),
            Row(
                "more folds than groups",
                _train("shop.csv --set data.target=buys --set data.group_column=size --folds 20"),
                "take fewer",
                _train("shop.csv --set data.target=buys --set data.group_column=size --folds 2"),
            ),
            Row(
                "two columns that divide the rows",
                _check("moons --set data.group_column=a --set data.time_column=b"),
                "give one",
                _check("moons --set data.group_column=a"),
            ),
            Row("two rows", _csv("short.csv"), "add rows", ("short.csv", GOOD)),
            Row("a target of 100,000 letters", _csv("long.csv"), "shorten it", ("long.csv", GOOD)),
            Row("700,000 columns", _csv("wide.csv"), "split the table", ("wide.csv", GOOD)),
            Row(
                "a column to leave out that is not there",
                _csv("good.csv --set 'data.ignore=[c]'"),
                "name one that is",
                _csv("good.csv --set 'data.ignore=[b]'"),
            ),
        ],
    ),
    Part(
        "Arrays",
        [
            Row("not what it is called", _train("junk.npz"), "save it again", ("junk.npz", WHOLE)),
            Row("cut short", _train("half.npz"), "copy it again", ("half.npz", WHOLE)),
            Row("a header that is no header", _train("header.npz"), "save it again", ("header.npz", WHOLE)),
            Row("Python objects", _train("objects.npz"), "save numbers", ("objects.npz", WHOLE)),
            Row("unpacks to far more", _train("bomb.npz"), "do not compress", ("bomb.npz", WHOLE)),
            Row("no y", _train("no_y.npz"), "add it", ("no_y.npz", WHOLE)),
            Row("X of one dimension", _train("flat.npz"), "reshape it", ("flat.npz", _npz(X=X[:, :1], y=Y))),
            Row("lengths that differ", _train("lengths.npz"), "make them agree", ("lengths.npz", WHOLE)),
            Row("classes that are no list", _train("classes.npz"), "list them", ("classes.npz", WHOLE)),
            Row("labels beyond the classes", _train("beyond.npz"), "number them from 0", ("beyond.npz", WHOLE)),
            Row("NaN", _train("nan.npz"), "say how to fill it", _train("nan.npz --set data.missing=indicator")),
            Row("complex numbers", _train("complex.npz"), "save real ones", ("complex.npz", WHOLE)),
            Row("X.npy without y", _train("X.npy"), "name the file of y", _train("X.npy --set data.target=y.npy")),
            Row("a .npy cut short", _train("cut.npy --set data.target=y.npy"), "copy it again", ("cut.npy", _npy(X))),
        ],
    ),
    Part(
        "Models and runs",
        [
            Row("no such run", "evaluate nowhere", "name one that is there", "evaluate run"),
            Row("a folder without a model", "predict folder shop.csv", "name a run folder", "predict run shop.csv"),
            Row("a file of another kind", "predict shop.csv shop.csv", "name a model", "predict run shop.csv"),
            Row("a model cut short", "predict half.safetensors shop.csv", "copy it again", "predict run shop.csv"),
            Row("a flipped bit", "predict flipped.safetensors shop.csv", "copy it again", "predict run shop.csv"),
            Row("a header of 8 exabytes", "predict huge.safetensors shop.csv", "copy it again", "predict run shop.csv"),
            Row(
                "odd contents, right digest",
                "predict odd.safetensors shop.csv",
                "make it again",
                "predict run shop.csv",
            ),
            Row(
                "the run folder is there already",
                _train("moons --run-dir run"),
                "another",
                _train("moons --run-dir new"),
            ),
            Row(
                "a category that training did not see",
                "predict run unseen.csv",
                "as the message says",
                "predict run unseen.csv --unknown ignore",
            ),
            Row(
                "a column that is missing",
                "predict run narrow.csv",
                "as the message says",
                "predict run narrow.csv --missing-columns fill",
            ),
            Row(
                "a column that training did not have",
                "predict run more.csv --extra-columns error",
                "as the message says",
                "predict run more.csv --extra-columns ignore",
            ),
            Row(
                "a threshold for values",
                "predict values values.csv --threshold 0.3",
                "leave it out",
                "predict values values.csv",
            ),
            Row(
                "a threshold that is no probability",
                "predict run shop.csv --threshold 30",
                "give one below 1",
                "predict run shop.csv --threshold 0.3",
            ),
            Row("a report of what is no run", "report folder", "give a run folder", "report run --html page.html"),
            Row(
                "metrics that are none",
                "report spoiled --html page.html",
                "take them out, or copy them again",
                ("spoiled/metrics.json", "{}"),
            ),
            Row(
                "a folder that is not there",
                "export run --to numpy --out nowhere/run.py",
                "name one that is",
                "export run --to numpy --out run.py",
            ),
            Row("text for a number", "predict run text.csv", "correct it", ("text.csv", SHOP)),
            Row(
                "output over the rows that are read",
                "predict run shop.csv --out shop.csv",
                "name another file",
                "predict run shop.csv --out predictions.csv",
            ),
            Row(
                "probabilities of values",
                "predict values values.csv --proba",
                "leave it out",
                "predict values values.csv",
            ),
        ],
    ),
]


def write_files(folder: Path) -> None:
    """Every file that a row needs."""
    tail = "5,6,0\n7,8,1\n" * 10
    files: dict[str, str | bytes] = {
        "empty.yaml": "# nothing yet\n",
        "twice.yaml": "seed: 1\nseed: 2\n",
        "hiden.yaml": "model: {hiden: [4]}\n",
        "list.yaml": "- seed\n",
        "deep.yaml": "a: " + "[" * 5000,
        "long.yaml": "a: [" + "1," * 30_000 + "1]\n",
        "huge.yaml": "# " + "x" * (1 << 18),
        "tab.yaml": "model:\n\thidden: [4]\n",
        "tag.yaml": "seed: !!python/object/apply:os.system ['touch pwned']\n",
        "alias.yaml": "a: &a 3\nseed: *a\n",
        "digits.yaml": "seed: " + "9" * 5000,
        "latin.yaml": "name: größe\n".encode("latin-1"),
        "nul.yaml": 'name: "a\\0b"\n',
        "open.yaml": "model: {hidden: [4}\n",
        "folder/good.yaml": CONFIGURATION,
        "shop.csv": SHOP,
        "good.csv": GOOD,
        "values.csv": "a,b\n" + "".join(f"{i / 7},{i % 5}\n" for i in range(40)),
        "nothing.csv": "",
        "header.csv": "a,b,y\n",
        "numbers.csv": "1.5,2.5,0\n3.5,4.5,1\n",
        "ragged.csv": "a,b,y\n1,2,0\n3,1\n",
        "quote.csv": 'a,b,y\n1,"2,0\n3,1,1\n',
        "utf16.csv": GOOD.encode("utf-16"),
        "comma.csv": "a,b,y\n" + '1,"1,234",0\n3,"2,345",1\n' * 10,
        "days.csv": "a,b,y\n" + "1,03/04/2024,0\n3,05/06/2024,1\n" * 10,
        "forms.csv": "a,b,y\n" + "1,2024-04-03,0\n3,05.06.2024,1\n" * 10,
        "names.csv": "a,b,y\n" + "".join(f"{i % 9},K{i % 150},{i % 2}\n" for i in range(400)),
        "gap.csv": "a,b,y\n1,2,0\n3,,1\n" + tail,
        "infinite.csv": "a,b,y\n1,2,0\n3,inf,1\n" + tail,
        "typo.csv": "a,b,y\n1,2,0\n3,4x,1\n" + tail,
        "unlabelled.csv": "a,b,y\n1,2,0\n3,4,\n" + tail,
        "one.csv": "a,b,y\n" + "5,6,0\n7,8,0\n" * 10,
        "short.csv": "a,b,y\n5,6,0\n7,8,1\n",
        "long.csv": "a,b,y\n" + "5,6,no\n7,8,yes\n" * 1000 + "1,2," + "x" * 100_000 + "\n",
        "wide.csv": "a," * 700_000 + "y\n",
        "half.csv.gz": gzip.compress(GOOD.encode())[:-9],
        "below.csv": "a,b,y\n1,2,0\n3,-4,1\n" + tail,
        "ours.yaml": CONFIGURATION,
        "unseen.csv": "size,height,colour\n1,2,violet\n",
        "more.csv": "size,height,colour,mood\n1,2,r,good\n",
        "narrow.csv": "size,height\n1,2\n",
        "text.csv": "size,height,colour\n1,2,r\nabc,2,r\n",
        "table.xls": b"PK\x03\x04",
        "junk.npz": b"not what it is called" * 10,
        "half.npz": WHOLE[: len(WHOLE) // 2],
        "header.npz": WHOLE.replace(b"'shape': (40, 3)", b"'shape': (40: 3)"),
        "objects.npz": _npz(X=np.array([{}, {}], dtype=object), y=Y),
        "bomb.npz": _deflated(np.zeros((1 << 17, 80))),
        "no_y.npz": _npz(X=X),
        "flat.npz": _npz(X=X[:, 0], y=Y),
        "lengths.npz": _npz(X=X, y=Y[:-1]),
        "classes.npz": _npz(X=X, y=Y, classes=np.array("no, yes")),
        "beyond.npz": _npz(X=X, y=Y + 5, classes=np.array(["no", "yes"])),
        "nan.npz": _npz(X=np.where(X[7, 1] == X, np.nan, X), y=Y),
        "complex.npz": _npz(X=X.astype(complex), y=Y),
        "X.npy": _npy(X),
        "y.npy": _npy(Y),
        "cut.npy": _npy(X)[:-100],
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    os.mkfifo(folder / "pipe.csv")
    _write_models(folder)


def _write_models(folder: Path) -> None:
    from support.mutations import with_digest

    with contextlib.chdir(folder):
        for words in (
            "train shop.csv --set data.target=buys --run-dir run",
            "train values.csv --set data.target=b --run-dir values",
        ):
            code, message = run(f"{words} {QUICK}" + (" --set data.task=regression" if "values.csv" in words else ""))
            assert code == 0, message
    whole = (folder / "run" / "model.safetensors").read_bytes()
    odd = json.loads(json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]["description"])
    odd["extras"]["preprocessor"]["numeric"] = ["size"]
    shutil.copytree(folder / "run", folder / "spoiled")
    (folder / "spoiled" / "metrics.json").write_text('{"sizes": 3}')
    (folder / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (folder / "huge.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + whole[8:])
    (folder / "odd.safetensors").write_bytes(with_digest(whole, description=json.dumps(odd)))


def run(command: str) -> tuple[int, str]:
    """A command of ``backprop-gpu`` in this process: its exit code and what it wrote to standard error."""
    from backprop_gpu.cli import main

    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(shlex.split(command))
    return code, errors.getvalue()


def page(messages: dict[tuple[str, str], str]) -> str:
    """The text of docs/errors.md; ``messages``: those of the rows, by part and row."""
    lines = [
        "# Errors and what to change",
        "",
        "Bad input ends a command with exit code 2 and one line, before anything is written. Each row below is run by",
        "the tests: the command gives this message, and after the change it works. `$Q` stands for",
        f"`{QUICK}`.",
        "",
        "Written by `.venv/bin/python tests/support/bad_input.py`, from the table in that file.",
    ]
    for title, rows in PARTS:
        lines += [
            "",
            f"## {title}",
            "",
            "| what is wrong | `backprop-gpu ...` | message | change |",
            "|---|---|---|---|",
        ]
        for row in rows:
            change = row.change
            if isinstance(row.fix, str):
                change += f": `{_cell(row.fix)}`"
            lines.append(
                f"| {row.what} | `{_cell(row.command) or ' '}` | {_cell(messages[title, row.what])} | {change} |"
            )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace(QUICK, "$Q").replace("|", "\\|")


def message_of(errors: str) -> str:
    """The message of a command that was refused."""
    (line,) = errors.splitlines()
    return line.removeprefix("backprop-gpu: ")


def main() -> None:
    """Write the page."""
    messages = {}
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        with contextlib.chdir(folder):
            for title, rows in PARTS:
                for row in rows:
                    code, errors = run(row.command)
                    if code != 2:
                        sys.exit(f"{row.command}: {code}, {errors}")
                    messages[title, row.what] = message_of(errors)
    PAGE.write_text(page(messages), encoding="utf-8")
    print(f"{PAGE}: {len(messages)} rows")


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    main()
