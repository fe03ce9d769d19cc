"""Small tables in files, for the command line, the Python interface and build."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from support.command import Command, settings

COLUMNS = ("größe", "höhe", "farbe", "kauft")
COLOURS = ("rot", "grün", "blau")


def shop_rows(n: int = 60, seed: int = 0) -> list[list[str]]:
    """Two numbers, a colour and an answer, ja or nein, that follows from them; every fifth row is blue."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        size, height = rng.normal(), rng.random()
        colour = COLOURS[2] if i % 5 == 0 else COLOURS[i % 2]
        rows.append([f"{size:.3f}", f"{height:.3f}", colour, "ja" if size + (colour == "rot") > 0.3 else "nein"])
    return rows


def write_csv(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = COLUMNS, delimiter: str = ",") -> Path:
    """A CSV file in UTF-8."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    return path


def read_csv(path: Path) -> list[list[str]]:
    """All rows of a CSV file, header included."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def arrays(task: str, n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """X (n, 5) and a target of the task that follows from X."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5))
    y = {
        "binary": (X[:, 0] > 0).astype(np.int64),
        "multiclass": (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0),
        "multilabel": (X[:, :3] > 0).astype(np.int64),
        "regression": 1000.0 + 100.0 * X[:, 0] - 50.0 * X[:, 1],
        "count": rng.poisson(np.exp(1.0 + 0.5 * X[:, 0])),
    }[task]
    return X, y


def trained_shop(folder: Path) -> Command:
    """The command line in a folder with shop.csv and a run on it."""
    command = Command(folder)
    write_csv(folder / "shop.csv", shop_rows())
    more = settings(data__source="shop.csv", data__target="kauft", training__epochs=20, data__test=0.2)
    command.ok("train", "--run-dir", "run", "--quiet", *more)
    return command
