"""Whole fits of our MLPClassifier and MLPRegressor beside scikit-learn's: same settings, same scores verified first."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError
from .peers import check_names
from .process import Worker, workers
from .rounds import interleave, summary
from .tables import Table, load

PEERS: dict[str, dict[str, Any]] = {  # ours first: the first is what the others are compared with
    "ours": {},
    "ours-native": {"kernels": "native"},
    "ours-float32": {"kernels": "native", "dtype": "float32"},
    "sklearn": {},
}
JUDGE = "sklearn"
TEST_SHARE, APART, ROWS_APART = 0.2, 0.01, 2
REST = 0.1  # seconds; see ``measure``


class Desk:
    """One peer at work in its own process: fits a table's training rows, and scores the others."""

    def __init__(self, peer: str) -> None:
        self.peer = peer

    def prepare(self, table: Table, epochs: int | None) -> dict[str, Any]:
        """Read or draw the table and fit once: ``score`` (accuracy or R2) on the test rows, ``epochs``, ``rows``."""
        X, y = load(table)
        n = len(X) - round(TEST_SHARE * len(X))
        self.X, self.y = X[:n], y[:n]
        self.table, self.max_iter = table, min(epochs or table.epochs, table.epochs)
        model = self._fit()
        return {"score": float(model.score(X[n:], y[n:])), "epochs": int(model.n_iter_), "rows": len(X) - n}

    def turn(self, at_least: float) -> float:
        """Seconds that a fit takes, the mean over ``at_least`` seconds."""
        done, spent = 0, 0.0
        while not done or spent < at_least:
            start = time.perf_counter()
            self._fit()
            spent += time.perf_counter() - start
            done += 1
        return spent / done

    def _fit(self) -> Any:
        """A fit of a new estimator, as every user's first one."""
        if self.peer == "sklearn":
            import sklearn.neural_network as home
        else:
            from .. import estimators as home
        kind = home.MLPClassifier if self.table.classes else home.MLPRegressor
        given = {"hidden_layer_sizes": self.table.hidden, "max_iter": self.max_iter, "random_state": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stopped after as many epochs as it was told to
            return kind(**given, **self.table.settings, **PEERS[self.peer]).fit(self.X, self.y)


def rows(
    tables: Sequence[Table],
    names: Sequence[str],
    rounds: int,
    at_least: float,
    epochs: int | None = None,
    variables: Mapping[str, str | None] | None = None,
) -> Iterator[dict[str, Any]]:
    """One row for each table and peer, and one for all tables: how many times as long as ours each peer takes.

    Raises
    ------
    ConfigError
        For an unknown peer.
    """
    check_names(names, PEERS)
    taking_part = [name for name in PEERS if not names or name in names or name == JUDGE]
    ratios: dict[str, list[float]] = {}
    with workers(".estimators:Desk", taking_part, variables or {}) as desks:
        for table in tables:
            for row in _table_rows(table, desks, rounds, at_least, epochs):
                ratios.setdefault(row["peer"], []).extend([row["ratio"]] if "ratio" in row else [])
                yield row
    for name, found in ratios.items():
        if found and name != taking_part[0]:
            note = f"median of {len(found)} tables; least {min(found):.2f}, most {max(found):.2f}"
            yield {"workload": "all", "peer": name, "ratio": float(np.median(found)), "note": note}


def _table_rows(
    table: Table, desks: dict[str, Worker], rounds: int, at_least: float, epochs: int | None
) -> Iterator[dict[str, Any]]:
    reached: dict[str, dict[str, Any]] = {}
    for name, desk in desks.items():
        try:
            reached[name] = desk.ask("prepare", table, epochs)
        except DeviceError as error:
            yield {"workload": table.name, "peer": name, "note": f"failed: {error}"}
    judge, ready = reached.get(JUDGE), []
    for name, own in reached.items():
        note = None if judge is None else unequal(own, judge, table.classes > 0)
        if note is None:
            ready.append(name)
        else:
            yield {"workload": table.name, "peer": name, "note": note, **_told(own)}
    if ready:
        seconds = interleave(ready, rounds, lambda name: float(desks[name].ask("turn", at_least)), rest=REST)
    for name in ready:
        figures = summary(seconds[name], seconds[ready[0]]) | {"base": ready[0]}
        yield {"workload": table.name, "peer": name, **figures, **_told(reached[name]), "note": ""}


def _told(reached: dict[str, Any]) -> dict[str, Any]:
    return {"score": reached["score"], "epochs": reached["epochs"]}


def unequal(own: dict[str, Any], judge: dict[str, Any], classes: bool) -> str | None:
    """Why a fit is not scikit-learn's: its score is more than 0.01 away, and for classes more than 2 test rows."""
    allowed = APART + (ROWS_APART / own["rows"] if classes else 0.0)
    away = abs(own["score"] - judge["score"])
    if away <= allowed:
        return None
    return f"not equal work: score {own['score']:.4f}, scikit-learn's {judge['score']:.4f}, within {allowed:.3f} wanted"
